// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"syscall"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/recipes"
)

// hints are the next steps for errors, the most particular first.
var hints = []struct {
	err  error
	hint string
}{
	{loader.ErrUnsigned, "to run it all the same on your own machine, add --allow-unsigned"},
	{loader.ErrClaims, "'tenon inspect BUNDLE' shows the claims; the least memory is what its root file system needs to boot"},
	{manifest.ErrVersion, "the bundle was made by another version of tenon: build it again"},
	{bundle.ErrExists, "choose another output with -o, or remove it"},
	{builder.ErrTooLarge, "build it with --detached (the image's signature then does not cover the initramfs), or make the image smaller"},
	{builder.ErrPlatform, "only linux/amd64 can be built so far: give an image that is made for it"},
	{builder.ErrNotFound, "IMAGE is a registry reference, or oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:ROOTFS"},
	{kernel.ErrNoSource, "apt-get install linux-source-6.1, or give a folder or a tarball with --kernel-source"},
	{kernel.ErrMissingTools, "apt-get install make gcc flex bison bc libelf-dev zstd perl xz-utils"},
	{syscall.ENOSPC, "make room, or put the cache elsewhere with --cache-dir"},
	{recipes.ErrUnknown, "choose one with -r NAME, or write your own and give its file: -r ./FILE.toml"},
	{qemu.ErrNoQEMU, "apt-get install qemu-system-x86"},
	{errNoAppinit, "'make build' puts it there"},
	{bundle.ErrInvalid, "a bundle is what 'tenon build' writes: oci:DIR, oci-archive:FILE, or a path to either"},
}

func hint(err error) string {
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return ""
}
