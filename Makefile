# The targets that people use are described in HACKING.md.
SHELL   := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
DATE    := $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X banger/internal/version.Version=$(VERSION) -X banger/internal/version.Commit=$(COMMIT) -X banger/internal/version.Date=$(DATE)
TOOL    := go tool -modfile=tools/go.mod

# PROGRAM=PACKAGE, what running a machine takes and what testing takes.
RUN_NEEDS  := qemu-system-x86_64=qemu-system-x86 mmdebstrap=mmdebstrap mkfs.ext4=e2fsprogs debugfs=e2fsprogs depmod=kmod
TEST_NEEDS := $(RUN_NEEDS) ssh=openssh-client rsync=rsync git=git nft=nftables iptables-nft=iptables dig=bind9-dnsutils ping=iputils-ping nsenter=util-linux gcc=gcc qemu-img=qemu-utils busybox=busybox-static tmux=tmux ip=iproute2 pkill=procps python3=python3 pip3=python3-pip

.PHONY: quickstart build test test-unit test-e2e lab lab-shell suites fuzz lint gen bench bench-lab soak vuln packages test-packages

# From nothing to a machine that has printed its name.
quickstart: packages build
	bin/banger vm run -- sh -c 'uname -sr; . /etc/os-release; echo "$$PRETTY_NAME"; hostname'

packages:
	@scripts/packages $(RUN_NEEDS)

test-packages:
	@scripts/packages $(TEST_NEEDS)

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

test: test-packages lint test-unit fuzz test-e2e lab

# Every fuzz target for a moment.
fuzz:
	scripts/fuzz 3s

# Without a machine; needs nothing but Go and gcc. Every pointer of SQLite's, which
# is translated C, would be checked too: that takes half of the time.
test-unit:
	go test -race -gcflags='modernc.org/...=-d=checkptr=0' ./...

# Real machines on this host.
test-e2e: build
	go test -tags e2e -count=1 -timeout 60m -v ./test/e2e/...

# What takes KVM and device-mapper, in an emulated host that has them.
lab: test-packages
	BANGER_LAB_RUN='$(RUN)' go test -tags lab -count=1 -timeout 45m -v -run '$(if $(RUN),TestLab,.)' ./test/lab

# Which conformance suite passed where, as a table.
suites: test-packages
	scripts/suites

# A shell in the emulated host in which KVM and device-mapper are real.
lab-shell: test-packages
	go run ./test/lab/shell

# The table of docs/benchmarks.md.
bench: test-packages build
	go test -tags bench -count=1 -timeout 60m -run 'TestBench$$' -v ./test/bench

bench-lab: test-packages
	go test -tags lab,bench -count=1 -timeout 60m -run 'TestBench$$' -v ./test/lab

# What repeats, at length; fuzzing for minutes.
soak: test-packages build
	go test -count=1 -timeout 1h -run TestWalk ./internal/lifecycle -rapid.checks=1000
	BANGER_SOAK_ROUNDS=50 go test -tags e2e -count=1 -timeout 3h -v -run 'TestHandles|TestDaemonKilledWhileStreaming|TestRandomWalk' ./test/e2e
	BANGER_SOAK_ROUNDS=100 go test -tags e2e -count=1 -timeout 3h -v -run 'InCycles' ./test/e2e
	BANGER_SOAK_ROUNDS=200 go test -tags e2e -count=1 -timeout 3h -v -run 'TestWarm|TestPool' ./test/e2e
	scripts/fuzz 5m

lint:
	@bad=$$(gofmt -l cmd internal test); [ -z "$$bad" ] || { echo "not gofmt clean: $$bad"; exit 1; }
	go vet -tags e2e,lab,bench,failpoints ./...
	$(TOOL) staticcheck -tags e2e,lab,bench ./...
	$(TOOL) buf lint
	@scripts/generated

gen:
	$(TOOL) buf generate

vuln:
	$(TOOL) govulncheck ./...
