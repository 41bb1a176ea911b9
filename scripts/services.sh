#!/bin/sh
# Installs the servers the tests drive, where they are missing, and says what it did.
# Nothing is started: each test process runs its own private server on a free port.
# Exit code 0: everything is there. 1: something is missing; the last lines say what to do.
set -eu

say() { printf 'services: %s\n' "$*"; }

have() { command -v "$1" >/dev/null 2>&1; }

# Prints the folder with initdb and postgres; the same places as internal/testsvc.
postgres_folder() {
	found=
	if have initdb && have postgres; then
		found=$(dirname "$(command -v initdb)")
	else
		for folder in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
			/opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
			/home/linuxbrew/.linuxbrew/opt/postgresql*/bin; do
			if [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ]; then
				found=$folder
			fi
		done
	fi
	[ -n "$found" ] && printf '%s\n' "$found"
}

# Runs a command as root, or fails when that would need a password.
as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	else
		sudo -n "$@"
	fi
}

can_be_root() {
	[ "$(id -u)" -eq 0 ] || { have sudo && sudo -n true 2>/dev/null; }
}

apt_install_postgres() {
	# The package would create and start a cluster on port 5432, which nobody asked for.
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		as_root mkdir -p /etc/postgresql-common/createcluster.d &&
			printf 'create_main_cluster = false\n' |
			as_root tee /etc/postgresql-common/createcluster.d/armature.conf >/dev/null || return 1
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
}

postgres() {
	if [ -n "${ARMATURE_POSTGRES_URL:-}" ]; then
		say "PostgreSQL: the one ARMATURE_POSTGRES_URL names"
		return 0
	fi
	if folder=$(postgres_folder); then
		say "PostgreSQL: present in $folder"
		return 0
	fi
	if have apt-get && can_be_root; then
		say "PostgreSQL: missing, installing with apt-get"
		apt_install_postgres || say "PostgreSQL: apt-get failed"
	elif have brew; then
		say "PostgreSQL: missing, installing with Homebrew"
		brew install postgresql@17 || say "PostgreSQL: brew failed"
	fi
	if folder=$(postgres_folder); then
		say "PostgreSQL: installed in $folder"
		return 0
	fi
	say "PostgreSQL: missing. Install the server with your package manager"
	say "  (Debian: apt-get install postgresql; Fedora: dnf install postgresql-server; macOS: brew install postgresql@17)"
	say "  or export ARMATURE_POSTGRES_URL=postgres://user:password@host:5432/postgres"
	say "  with a login that may create databases."
	return 1
}

apt_install_redis() {
	# The package would start a server on port 6379, which nobody asked for: a policy
	# of 101 forbids services to start, unless the administrator has one of their own.
	policy=/usr/sbin/policy-rc.d ours=
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null &&
			as_root chmod 755 "$policy" && ours=yes
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q &&
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends redis-server
	status=$?
	[ -z "$ours" ] || as_root rm -f "$policy"
	return "$status"
}

redis() {
	if [ -n "${ARMATURE_REDIS_URL:-}" ]; then
		say "Redis: the one ARMATURE_REDIS_URL names"
		return 0
	fi
	if ! have redis-server; then
		if have apt-get && can_be_root; then
			say "Redis: missing, installing with apt-get"
			apt_install_redis || say "Redis: apt-get failed"
		elif have brew; then
			say "Redis: missing, installing with Homebrew"
			brew install redis || say "Redis: brew failed"
		fi
	fi
	if have redis-server; then
		say "Redis: present in $(dirname "$(command -v redis-server)")"
		return 0
	fi
	say "Redis: missing. Install redis-server with your package manager"
	say "  (Debian: apt-get install redis-server; Fedora: dnf install redis; macOS: brew install redis)"
	say "  or export ARMATURE_REDIS_URL=redis://host:6379/0"
	return 1
}

# strace makes a disk fail for one process. Without it, and on other systems, the
# tests of failing disks skip, so a missing one is no error.
strace_tool() {
	[ "$(uname -s)" = Linux ] || return 0
	if ! have strace && have apt-get && can_be_root; then
		say "strace: missing, installing with apt-get"
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends strace ||
			say "strace: apt-get failed"
	fi
	if have strace; then
		say "strace: present in $(dirname "$(command -v strace)")"
	else
		say "strace: missing; the tests of failing disks will skip"
	fi
}

failed=0
postgres || failed=1
redis || failed=1
strace_tool
exit "$failed"
