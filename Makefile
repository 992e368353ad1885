# SPDX-License-Identifier: Apache-2.0
#
#   make demo    build redis as an app kernel, boot it, talk to it
#   make test    everything, with what boots under QEMU
#   make bench   measurements against peers, as ratios
#   make soak    the heavier proof: longer fuzzing, more kernels
#
# All of it runs as root on a fresh Debian 12 with Go 1.26.

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
	sbsigntool osslsigncode openssl pesign libnss3-tools libssl-dev kmod ovmf efitools linux-headers-amd64 dkms softhsm2 opensc strace docker-registry systemd kexec-tools

GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

FUZZ := $(shell grep -rHoE '^func Fuzz[A-Za-z]+' --include=*_test.go . | sed -E 's|/[^/]*:func |:|')

.PHONY: build module demo test unit e2e lint bench soak deps clean

build: module
	go build -trimpath -o bin/tenon ./cmd/tenon
	go build -trimpath -ldflags='-s -w' -o bin/mortise ./cmd/mortise
	go build -trimpath -buildvcs=false -ldflags='-s -w' -o bin/appinit ./cmd/appinit # the same bytes in every checkout
	CGO_ENABLED=1 go build -trimpath -o bin/sigstore-kms-pkcs11 ./cmd/sigstore-kms-pkcs11 # loads an HSM's library
	@size=$$(stat -c %s bin/appinit); test $$size -le 2600000 || { echo "appinit has $$size bytes: it is in every initramfs, 2.6 MB at most" >&2; exit 1; }

# module makes a directory of mortise.ko's sources, for DKMS or make; see docs/cokernel.md.
MODULE := bin/mortise-module
module:
	@rm -rf $(MODULE) && mkdir -p $(MODULE)
	@cp -t $(MODULE) loader/cokernel/module/* loader/cokernel/guest/src/zone.h loader/cokernel/guest/src/ring.h

# deps installs Debian packages, once.
deps:
	@missing=; for p in $(PACKAGES); do \
		dpkg-query -W -f '$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; \
		apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing >/dev/null; fi

demo/%-image: testdata/debian-image.sh | deps
	@echo "making an OCI image of $* from Debian's packages"
	@testdata/debian-image.sh $* $@

demo: deps build $(IMAGE)
	@testdata/demo.sh bin/tenon $(IMAGE) demo/redis.tenon

test: deps build lint unit e2e

lint: bin/golangci-lint
	CGO_ENABLED=1 go vet -tags e2e ./...
	CGO_ENABLED=1 bin/golangci-lint run --build-tags e2e ./...

bin/golangci-lint:
	@echo "building golangci-lint, once"
	GOBIN=$(CURDIR)/bin go install $(GOLANGCI)

unit:
	go test ./...

e2e: deps build $(IMAGES)
	for p in ./builder ./builder/rootfs ./builder/initramfs ./signer/... ./loader/alloc ./loader/instance ./loader/cokernel ./cmd/mortise ./cmd/tenon; do go test -tags e2e -count=1 -timeout 80m -v -run '^TestE2E' $$p; done

bench: deps build $(IMAGES)
	testdata/bench.sh bin/tenon $(IMAGES)
	go test -tags e2e -count=1 -v -run '^TestBench' ./cmd/tenon | sed -n 's/.*bench: //p; /FAIL/{p;q1}'

soak: deps build $(IMAGES)
	TENON_SOAK=1 go test -tags e2e -count=1 -timeout 5h -v -run '^Test(E2E|Soak)' ./cmd/tenon ./loader/alloc ./loader/cokernel
	TENON_SOAK=1 go test -count=1 -timeout 1h -v -run '^TestSequences$$' ./loader/alloc
	CGO_ENABLED=1 go test -race ./...
	for t in $(FUZZ); do go test -run '^$$' -fuzz "^$${t#*:}$$" -fuzztime 3m -fuzzminimizetime 20x $${t%:*}; done

clean:
	rm -rf bin demo
