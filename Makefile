# `make` is what a reviewer runs; `make test` is what a user and CI run.
GO          ?= go
TOOL        := $(GO) tool -modfile=tools/go.mod
PKGS        ?= ./...
TEST_FLAGS  ?= -timeout=15m
FUZZTIME    ?= 5s
PROTOS       = $(shell find examples -name '*.proto' 2>/dev/null)
PROTOC      ?= protoc

.DEFAULT_GOAL := all
.PHONY: all help fmt fmt-check vet lint lint-rules race test soak services examples generate generate-check fuzz fixture peers bench-resilience bench-transport clean

all: fmt-check vet lint race examples ## format check, vet, lint, race tests, examples

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

fmt: ## rewrite every Go file in canonical format
	@gofmt -w .

fmt-check: ## fail when a Go file is not in canonical format
	@bad="$$(gofmt -l .)"; if [ -n "$$bad" ]; then printf 'not gofmt-ed (run make fmt):\n%s\n' "$$bad"; exit 1; fi

vet: ## go vet over everything
	$(GO) vet $(PKGS)

lint: ## golangci-lint, pinned in tools/go.mod (first run builds it: about two CPU minutes)
	$(TOOL) golangci-lint run $(PKGS)

lint-rules: ## rewrite the linter's import rules from the import table
	$(GO) test -count=1 ./internal/archtest -run TestLinterKnowsEveryRow -update

race: ## race tests with what this machine has; tests of absent servers skip
	$(GO) test -race $(TEST_FLAGS) $(PKGS)
	$(GO) test -race -tags failpoint ./internal/failpoint

test: services ## race tests with every real server required (installs what is missing)
	ARMATURE_REQUIRE_SERVICES=1 $(GO) test -race $(TEST_FLAGS) $(PKGS)
	$(GO) test -race -tags failpoint ./internal/failpoint

soak: services ## the shop under 200 kills for each database, its supervisor killed 20 times (about 15 minutes; SHOP_SEED repeats one)
	ARMATURE_REQUIRE_SERVICES=1 SHOP_KILLS=200 SHOP_SUPERVISOR_KILLS=20 SHOP_FREEZES=6 $(GO) test -count=1 -timeout=60m -v \
	  -run 'TestKillsLoseNothing|TestTheProcessesDieWithTheirSupervisor|TestTwoOrderProcesses' ./examples/shop

services: ## install the servers the tests drive, where they are missing
	@scripts/services.sh

examples: ## run the small examples
	$(GO) run ./examples/quickstart
	$(GO) run ./examples/http
	$(GO) run ./examples/grpc
	$(GO) run ./examples/resilience -fast

generate: ## regenerate the protobuf code of the examples
	@mkdir -p .cache/bin
	@$(GO) build -modfile=tools/go.mod -o .cache/bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@set -e; for p in $(PROTOS); do echo "protoc $$p"; \
	  PATH="$(CURDIR)/.cache/bin:$$PATH" $(PROTOC) -I . --go_out=. --go_opt=paths=source_relative \
	    --go-grpc_out=. --go-grpc_opt=paths=source_relative "$$p"; done

generate-check: generate ## fail when committed generated code is stale
	@git diff --exit-code -- '*.pb.go'

# A nested module is its own world to the go command, so each target runs inside
# the module that holds it.
fuzz: ## run every fuzz target, those of nested modules too, for FUZZTIME (default 5s each)
	@set -e; for d in $$(git grep -l '^func Fuzz' -- '*_test.go' | xargs -n1 dirname | sort -u); do \
	  m=$$d; while [ ! -f "$$m/go.mod" ]; do m=$$(dirname "$$m"); done; \
	  for f in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $$d/*_test.go); do \
	    echo "fuzz $$d $$f"; $(GO) -C "$$m" test "$(CURDIR)/$$d" -run='^$$' -fuzz="^$$f\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=1s; done; done

peers: ## show that the peers' defects, which resilience keeps out, are still in the peers
	$(GO) -C test/peers vet ./...
	$(GO) -C test/peers test -race $(TEST_FLAGS) ./...

bench-resilience: ## measure resilience against its peers; fails when it is slower than promised
	$(GO) -C test/peers run ./bench $(BENCH_FLAGS)

bench-transport: ## measure httpx and grpcx against bare servers and peers; fails when they are slower than promised
	$(GO) -C test/peers run ./transportbench $(BENCH_FLAGS)

fixture: ## prove that a stranger's module which imports us tidies and builds
	ARMATURE_REQUIRE_SERVICES=1 $(GO) test -count=1 -timeout=10m ./test/consumer

clean: ## remove what the other targets leave behind
	rm -rf .cache bin coverage.out
