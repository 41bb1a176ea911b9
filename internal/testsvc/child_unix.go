//go:build unix

package testsvc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// supervise runs the command that follows folder and signal, and holds it by its
// standard input: the read ends when the test process is gone, whatever ended it,
// on every Unix alike. (Linux could send a signal on the parent's death, but ties
// it to one thread and leaves the folder.) Nothing here deserves a clean shutdown.
const supervise = `
folder=$1 signal=$2
shift 2
"$@" </dev/null >"$folder/log" 2>&1 &
pid=$!
read -r parent_gone || :
kill -"$signal" "$pid" 2>/dev/null
wait "$pid"
cd / && rm -rf "$folder"
`

// child is a private server, held by the write end of a pipe.
type child struct {
	command *exec.Cmd
	pipe    *os.File
}

// spawn starts a server that lives at most as long as this process. folder is
// removed when it ends.
func spawn(folder, signal string, account *syscall.Credential, server ...string) (*child, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer read.Close()
	// No output pipes: "go test" waits for every holder of its own.
	//nolint:noctx // it lives until this process ends: supervise sees to that
	command := exec.Command("/bin/sh", append([]string{"-c", supervise, "sh", folder, signal}, server...)...)
	command.Dir, command.Stdin = folder, read
	command.SysProcAttr = attributes(account)
	command.Env = environment(folder)
	if err := command.Start(); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	return &child{command: command, pipe: write}, nil
}

// stop ends the server and waits for it.
func (c *child) stop() {
	_ = c.pipe.Close()
	_ = c.command.Wait() // it was killed, and says so
}

// hold keeps the write ends of the pipes reachable for the life of the process;
// a collected *os.File closes its descriptor and would stop the server.
var hold struct {
	sync.Mutex

	pipes []*os.File
}

func holdOpen(c *child) {
	hold.Lock()
	defer hold.Unlock()
	hold.pipes = append(hold.pipes, c.pipe)
}

func startChild(folder string) (string, error) {
	account, err := serverAccount()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(temporaryFolder(account), "armature-postgres-")
	if err != nil {
		return "", fmt.Errorf("make data folder: %w", err)
	}
	started := false
	defer func() {
		if !started {
			_ = os.RemoveAll(dir)
		}
	}()
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return "", fmt.Errorf("give data folder to the server's account: %w", err)
		}
	}

	var output bytes.Buffer
	//nolint:noctx // one server serves every test of the process, so no context of a test bounds its start
	initdb := exec.Command(filepath.Join(folder, "initdb"),
		"-D", filepath.Join(dir, "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
	initdb.Dir, initdb.Stdout, initdb.Stderr = dir, &output, &output
	initdb.SysProcAttr = attributes(account)
	initdb.Env = environment(dir)
	if err := initdb.Run(); err != nil {
		return "", fmt.Errorf("initdb: %w: %s", err, lastLine(output.Bytes()))
	}

	port, err := freePort()
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	// SIGQUIT is PostgreSQL's immediate shutdown.
	server, err := spawn(dir, "QUIT", account, filepath.Join(folder, "postgres"),
		"-D", filepath.Join(dir, "data"), "-p", strconv.Itoa(port), "-F",
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=200",
		"-c", "shared_buffers=32MB", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "autovacuum=off")
	if err != nil {
		return "", err
	}

	address := fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
	pidfile := filepath.Join(dir, "data", "postmaster.pid")
	begun := time.Now()
	err = awaitReady(func() error { return ping(address, time.Second) }, time.Minute, func() error {
		// postgres writes its pid file within milliseconds; none after that means it gave up.
		if _, err := os.Stat(pidfile); errors.Is(err, os.ErrNotExist) && time.Since(begun) > 5*time.Second {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			return fmt.Errorf("postgres exited: %s", lastLine(text))
		}
		return nil
	})
	if err == nil && !ours(pidfile, port) {
		err = fmt.Errorf("port %d was taken by another server", port)
	}
	if err != nil {
		server.stop()
		return "", err
	}
	started = true
	holdOpen(server)
	return address, nil
}

// ours tells whether the server that answers on port is the one of pidfile,
// whose fourth line is the port. Data folders are private, so the line suffices.
func ours(pidfile string, port int) bool {
	text, err := os.ReadFile(pidfile)
	lines := bytes.Split(text, []byte("\n"))
	return err == nil && len(lines) > 3 && string(bytes.TrimSpace(lines[3])) == strconv.Itoa(port)
}

// serverAccount is the account for the server: nil for our own, another one when
// we are root, which PostgreSQL refuses.
func serverAccount() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			continue
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			continue
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("running as root and neither account postgres nor nobody exists")
}

// temporaryFolder is where the other account can reach its data: root's own
// TMPDIR may be closed to it.
func temporaryFolder(account *syscall.Credential) string {
	dir := os.TempDir()
	if account == nil {
		return dir
	}
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode()&0o001 == 0 {
			return "/var/tmp"
		}
		if d == filepath.Dir(d) {
			return dir
		}
	}
}

// A session of its own keeps a terminal's interrupt for the tests alone.
func attributes(account *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: account}
}

func environment(home string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C", "TZ=UTC"}
}

func lastLine(text []byte) []byte {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return lines[len(lines)-1]
}

// startRedis starts redis-server on port, in memory alone, and waits until it
// answers with an id of ours: another server on that port would not have it.
func startRedis(binary string, port int) (*child, error) {
	dir, err := os.MkdirTemp("", "armature-redis-")
	if err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	server, err := spawn(dir, "KILL", nil, binary, "--port", strconv.Itoa(port), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--dir", dir, "--databases", "16", "--daemonize", "no",
		"--pidfile", filepath.Join(dir, "pid"))
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	begun := time.Now()
	address := fmt.Sprintf("redis://127.0.0.1:%d", port)
	err = awaitReady(func() error { return pingRedis(address, time.Second, dir) }, time.Minute, func() error {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		if bytes.Contains(text, []byte("Failed listening")) || bytes.Contains(text, []byte("Fatal")) {
			return fmt.Errorf("redis-server exited: %s", lastLine(text))
		}
		if _, err := os.Stat(dir); err != nil && time.Since(begun) > time.Second {
			return errors.New("redis-server exited")
		}
		return nil
	})
	if err != nil {
		server.stop()
		return nil, err
	}
	return server, nil
}
