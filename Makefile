# gt06: build, run, test. `make test` installs what it needs on a fresh Debian.
SHELL := /bin/bash
GO ?= go
BIN := $(CURDIR)/bin
TOOLS := $(CURDIR)/.bin

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT := mvdan.cc/gofumpt@v0.12.0
DEADCODE := golang.org/x/tools/cmd/deadcode@v0.52.0

.PHONY: build run demo test race fuzz e2e lint bench soak bench-handover man clean

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

FUZZTIME ?= 10m
fuzz:
	$(GO) test ./protocol -run xxx -fuzz FuzzFramer -fuzztime $(FUZZTIME)
	$(GO) test ./protocol -run xxx -fuzz FuzzDecode -fuzztime $(FUZZTIME)
	$(GO) test ./protocol -run xxx -fuzz FuzzFastEqualsTable -fuzztime $(FUZZTIME)
	$(GO) test ./storage/spool -run xxx -fuzz FuzzRecover -fuzztime $(FUZZTIME)

# Long forms of the fault loops.
soak:
	.ci/test soak

bench:
	$(GO) test -run xxx -bench . -benchmem ./...

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
