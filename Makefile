# gt06: build, run, test. `make test` installs what it needs on a fresh Debian.
SHELL := /bin/bash
GO ?= go
BIN := $(CURDIR)/bin
TOOLS := $(CURDIR)/.bin

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOFUMPT := mvdan.cc/gofumpt@v0.12.0
DEADCODE := golang.org/x/tools/cmd/deadcode@v0.52.0
GREMLINS := github.com/go-gremlins/gremlins/cmd/gremlins@v0.6.0
GOBCO := github.com/rillig/gobco v1.3.4

.PHONY: build run demo test race fuzz mutation coverage e2e lint bench bench-large soak bench-handover man deb dist elsewhere clean

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

# Every fuzz test of the repository, one after the other. At the end of its time
# Go before 1.27 now and then reports its own deadline as the failure (golang/go
# #75804): that line without an input that failed is the end, not a finding.
FUZZTIME ?= 10m
fuzz:
	@log=$$(mktemp); trap 'rm -f $$log' EXIT; set -o pipefail; \
	git grep -n '^func Fuzz' -- '*_test.go' | sed -E 's|([^:]*)/[^/:]*:[0-9]+:func (Fuzz[A-Za-z0-9]*).*|\1 \2|' | while read -r dir name; do \
	echo "$$name in $$dir"; $(GO) test "./$$dir" -run xxx -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 2s 2>&1 | tee $$log || \
	{ grep -qx ' *context deadline exceeded' $$log && ! grep -q 'Failing input' $$log; } || exit 1; done

# Mutants of protocol that its tests let live; the share of those killed is at
# the end. About half an hour on two cores; the limit is for mutants that loop and allocate.
mutation: .bin/gremlins
	ulimit -v 4000000; GT06_VECTORS=$(abspath ../shared/vectors) .bin/gremlins unleash ./protocol -E vectortest/ -E fleet/ --workers 2 --timeout-coefficient 5 --threshold-efficacy 80

# Branches of protocol and of the log that their own tests take; those they do
# not, and the share, which must be 95 % of each.
coverage: .bin/gobco
	@for p in protocol storage/spool; do GT06_VECTORS=$(abspath ../shared/vectors) .bin/gobco -branch -test -timeout=5m ./$$p | \
	awk -v p=$$p '/^Branch coverage/ {split($$3, n, "/"); share = 100*n[1]/n[2]; next} /^(ok|options|$$)/ {next} {print} END {printf "%s: %s branches, %.1f %%\n", p, n[1] "/" n[2], share; exit share < 95}' || exit 1; done

# Long forms of the fault loops.
soak:
	.ci/test soak

# Each figure beside its reference from the same run; table, plots and results
# in bench/. COMPARE=bench/results.json sets the run before beside; it fails when
# a ratio is more than 15 % apart.
VECTORS := $(wildcard ../shared/vectors/captures.jsonl ../shared/vectors/generated.jsonl)
bench: build
	mkdir -p bench
	.ci/with-mariadb sh -c '$(BIN)/gt06ctl bench --mariadb "$$GT06_TEST_MARIADB" --out bench $(VECTORS:%=--vectors %) $(COMPARE:%=--compare %)'

# Fifty million positions: about twenty minutes, 15 GB.
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

# The version: of the tag on this commit, else before the next release, by time.
RELEASE := 0.1.0
VERSION ?= $(shell git describe --tags --exact-match --match 'v*' 2>/dev/null | sed s/^v// | grep . || TZ=UTC git log -1 --format=$(RELEASE)~git%cd.%h --date=format-local:%Y%m%d%H%M%S)
DIST := $(CURDIR)/dist
HOST := $(DIST)/linux-$(shell $(GO) env GOHOSTARCH)

# One program for one system: $(call release,gt06d,linux,arm64).
release = CGO_ENABLED=0 GOOS=$(2) GOARCH=$(3) $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X gt06/cmd/internal/cli.version=$(VERSION)' -o $(DIST)/$(2)-$(3)/ ./cmd/$(1)

# dist/gt06_VERSION_{amd64,arm64}.deb: installs, upgrades under load, and says
# what is missing (ops/deploy/deb).
ARCHS ?= amd64 arm64
deb: $(ARCHS:%=deb-%)
deb-%: linux-% linux-$(shell $(GO) env GOHOSTARCH)
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct)} ops/deploy/deb/build $(VERSION) $* $(DIST)/linux-$* $(DIST) $(HOST)
linux-%:
	$(call release,gt06d,linux,$*)
	$(call release,gt06ctl,linux,$*)

# Everything that is released, with checksums; gt06ctl for the operator's laptop,
# too.
dist: deb dist-darwin-amd64 dist-darwin-arm64 dist-windows-amd64
	cd $(DIST) && find *-*/ gt06_$(VERSION)_*.deb -type f | LC_ALL=C sort | xargs sha256sum > SHA256SUMS && cat SHA256SUMS
dist-%:
	$(call release,gt06ctl,$(firstword $(subst -, ,$*)),$(lastword $(subst -, ,$*)))

# The server on another processor, the operator's tool on a laptop: what compiles
# for Windows does for macOS, too; make dist builds both.
elsewhere:
	GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./cmd/gt06d ./protocol ./storage/spool
	GOOS=windows CGO_ENABLED=0 $(GO) vet ./cmd/gt06ctl

clean:
	rm -rf bin dist

.bin/golangci-lint:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(GOLANGCI)
.bin/gofumpt:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(GOFUMPT)
.bin/deadcode:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(DEADCODE)
.bin/gremlins:
	GOBIN=$(TOOLS) GOFLAGS= $(GO) install $(GREMLINS)
# By a module of its own: the proxy has this version and no list of others.
.bin/gobco:
	d=$$(mktemp -d) && printf 'module tools\n\nrequire $(GOBCO)\n' >$$d/go.mod && cd $$d && GOFLAGS=-mod=mod $(GO) build -o $(TOOLS)/gobco $(firstword $(GOBCO)) && rm -rf $$d
