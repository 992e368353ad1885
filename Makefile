# SPDX-License-Identifier: Apache-2.0
#
# 'make help' lists the targets and what they cost. All of them run as root on a fresh
# Debian 12 with Go 1.26.

SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DELETE_ON_ERROR:

export CGO_ENABLED := 0
IMAGE := demo/redis-image
export TENON_BIN := $(CURDIR)/bin
IMAGES := $(IMAGE) demo/nginx-image
export TENON_REDIS_IMAGE := $(CURDIR)/$(IMAGE)
export TENON_NGINX_IMAGE := $(CURDIR)/demo/nginx-image

PACKAGES := make gcc libc6-dev flex bison bc libelf-dev zstd perl xz-utils linux-source-6.1 linux-image-amd64 \
	qemu-system-x86 cpio libarchive-tools mmdebstrap umoci skopeo busybox-static redis-tools procps time libcap2-bin \
	sbsigntool osslsigncode openssl pesign libnss3-tools libssl-dev kmod ovmf efitools linux-headers-amd64 dkms systemd-boot-efi softhsm2 opensc strace docker-registry systemd kexec-tools

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

FUZZ := $(shell grep -rHoE '^func Fuzz[A-Za-z]+' --include=*_test.go . | sed -E 's|/[^/]*:func |:|')

# Packages of which the wildcard ./... knows nothing.
TESTDATA := $(shell find . -path '*/testdata/*' -name '*.go' -not -path '*/sigstore-go/*' -printf '%h\n' | sort -u)

# Packages whose tests do more with TENON_SOAK=1.
SOAK := $(shell grep -rlE --include=*_test.go 'e2e\.Soak\(\)|^func TestSoak' . | xargs dirname | sort -u)

# The tests to run: all, or of package P those whose names begin with TestE2E and T.
P := $(shell grep -rlE --include=*_test.go '^func TestE2E' . | xargs dirname | sort -u)
T :=

# What to compare, separated by commas (all when empty), and flags: make -s bench BENCHFLAGS=--json.
B :=
BENCHFLAGS :=

.PHONY: help build module demo test unit e2e lint bench soak deps clean

help: ## this list
	@sed -nE 's/^([a-z0-9]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

build: module ## the programs, in bin: 1 min the first time
	go build -trimpath -o bin/tenon ./cmd/tenon
	go build -trimpath -ldflags='-s -w' -o bin/mortise ./cmd/mortise
	go build -trimpath -buildvcs=false -ldflags='-s -w' -o bin/appinit ./cmd/appinit # the same bytes in every checkout
	CGO_ENABLED=1 go build -trimpath -o bin/sigstore-kms-pkcs11 ./cmd/sigstore-kms-pkcs11 # loads an HSM's library
	@size=$$(stat -c %s bin/appinit); test $$size -le 2600000 || { echo "appinit has $$size bytes: it is in every initramfs, 2.6 MB at most" >&2; exit 1; }

# A directory of mortise.ko's sources, for DKMS or make; see docs/cokernel.md.
MODULE := bin/mortise-module
module: ## the sources of mortise.ko, in bin/mortise-module
	@rm -rf $(MODULE) && mkdir -p $(MODULE)
	@cp -t $(MODULE) loader/cokernel/module/* loader/cokernel/guest/src/zone.h loader/cokernel/guest/src/ring.h

deps: ## what is missing of Debian's packages: 2 min, once
	@missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
		apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; fi

demo/%-image: testdata/debian-image.sh | deps
	@echo "making an OCI image of $* from Debian's packages"
	@testdata/debian-image.sh $* $@

demo: deps build $(IMAGE) ## redis as an app kernel, built, booted and asked: 10 min, then 20 s
	@testdata/demo.sh bin/tenon $(IMAGE) demo/redis.tenon

test: deps build lint unit e2e ## everything; CI runs this: 50 min, and 30 min for three kernels, once

lint: bin/golangci-lint ## go vet and golangci-lint: 1 min
	CGO_ENABLED=1 go vet -tags e2e ./... $(TESTDATA)
	CGO_ENABLED=1 bin/golangci-lint run --allow-parallel-runners --build-tags e2e ./... $(TESTDATA)
	cd testdata/sigstore-go && go vet . && ../../bin/golangci-lint run --allow-parallel-runners

bin/golangci-lint:
	@echo "building golangci-lint, once"
	GOBIN=$(CURDIR)/bin go install $(GOLANGCI)

unit: ## tests that need neither root nor network: 1 min
	go test ./... $(TESTDATA)

e2e: deps build $(IMAGES) ## tests of whole programs; one: make e2e P=./loader/qemu T=Resize
	@go test -tags e2e -list '^TestE2E$(T)' $(P) | grep ^Test >/dev/null || { echo "no test TestE2E$(T) in $(P)" >&2; exit 1; }
	go test -tags e2e -p 1 -count=1 -timeout 80m -v -run '^TestE2E$(T)' $(P)

bench: deps build $(IMAGES) ## comparisons with peers, as ratios; one: make bench B=rootfs; 10 min, and 10 min for kernels, once
	go build -trimpath -o bin/bench ./testdata/bench
	@bin/bench $(BENCHFLAGS) $(B)

soak: deps build $(IMAGES) ## the same code, more rounds, more kernels, fuzzing: hours
	TENON_SOAK=1 go test -tags e2e -p 1 -count=1 -timeout 5h -v -run '^Test(E2E|Soak)' $(SOAK)
	TENON_SOAK=1 go test -count=1 -timeout 1h -v -run '^TestSequences$$' ./loader/alloc
	CGO_ENABLED=1 go test -race ./...
	for t in $(FUZZ); do go test -run '^$$' -fuzz "^$${t#*:}$$" -fuzztime 3m -fuzzminimizetime 20x $${t%:*}; done

clean: ## removes what make made here
	rm -rf bin demo
