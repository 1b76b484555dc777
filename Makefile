# gt06: build, run, test. `make test` installs what it needs on a fresh Debian.
SHELL := /bin/bash
GO ?= go
BIN := $(CURDIR)/bin
TOOLS := $(CURDIR)/.bin

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT := mvdan.cc/gofumpt@v0.12.0
DEADCODE := golang.org/x/tools/cmd/deadcode@v0.52.0
GREMLINS := github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0

.PHONY: build run demo test race fuzz mutation e2e lint bench bench-large soak bench-handover man clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN)/ ./cmd/gt06d ./cmd/gt06ctl

# Serves on the loopback with SQLite, without any configuration.
run: build
	@echo "gt06ctl is $(BIN)/gt06ctl"
	exec $(BIN)/gt06d

# The server and twenty simulated devices.
demo: build
	@$(BIN)/gt06d & pid=$$!; trap '$(BIN)/gt06ctl stop; wait $$pid' EXIT; sleep 1; \
	$(BIN)/gt06ctl simulate --devices 20 --rate 1 --duration 20s; $(BIN)/gt06ctl devices

test:
	.ci/test

lint: .bin/golangci-lint .bin/gofumpt .bin/deadcode
	$(GO) run ./.ci/suite format lint "no ignored inserts" "dead code"

race:
	$(GO) test -race ./...

e2e:
	$(GO) test -v -parallel 8 ./cmd/gt06d/e2e

# Every fuzz test of the repository, one after the other.
FUZZTIME ?= 10m
fuzz:
	@git grep -n '^func Fuzz' -- '*_test.go' | sed -E 's|([^:]*)/[^/:]*:[0-9]+:func (Fuzz[A-Za-z0-9]*).*|\1 \2|' | while read -r dir name; do \
	echo "$$name in $$dir"; $(GO) test "./$$dir" -run xxx -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s || exit 1; done

# Mutants of protocol that its tests let live; the share of those killed is at
# the end. About half an hour on two cores; the limit is for mutants that loop and allocate.
mutation: .bin/gremlins
	ulimit -v 4000000; GT06_VECTORS=$(abspath ../shared/vectors) .bin/gremlins unleash ./protocol -E vectortest/ -E fleet/ --workers 2 --timeout-coefficient 5 --threshold-efficacy 80

# Long forms of the fault loops.
soak:
	.ci/test soak

# Each figure beside its reference from the same run; table, plots and results
# in bench/. COMPARE=bench/results.json sets an earlier run's ratios beside.
VECTORS := $(wildcard ../shared/vectors/captures.jsonl ../shared/vectors/generated.jsonl)
bench: build
	mkdir -p bench
	.ci/with-mariadb sh -c '$(BIN)/gt06ctl bench --mariadb "$$GT06_TEST_MARIADB" --out bench $(VECTORS:%=--vectors %) $(COMPARE:%=--compare %)'

# Fifty million positions: a quarter of an hour and more, 10 GB.
ROWS ?= 50000000
bench-large: build
	mkdir -p bench
	.ci/with-mariadb sh -c '$(BIN)/gt06ctl bench --only large --rows $(ROWS) --mariadb "$$GT06_TEST_MARIADB" --out bench'

# What a device sees of an upgrade, a crash and a restart; as a table and a plot
# in bench/.
bench-handover:
	GT06_BENCH=1 GT06_BENCH_OUT=$(CURDIR)/bench $(GO) test -v -count=1 -timeout 20m -run TestBenchHandover ./cmd/gt06d/e2e

# Manual pages of both programs.
man: build
	$(BIN)/gt06d man --dir $(BIN)/man
	$(BIN)/gt06ctl man --dir $(BIN)/man

clean:
	rm -rf bin

.bin/golangci-lint:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(GOLANGCI)
.bin/gofumpt:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(GOFUMPT)
.bin/deadcode:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(DEADCODE)
.bin/gremlins:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(GREMLINS)
