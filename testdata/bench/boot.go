// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// bootedRE is what PID 1 says when it has mounted everything and misses its network card:
// there is none, as Debian's kernel has no driver for one built in.
var bootedRE = regexp.MustCompile(`appinit: error: the bundle claims a network interface`)

// boot compares kernels. The root file system is redis's, PID 1 is ours.
func boot(j *job) []series {
	image := "oci:" + e2e.Required(j, "TENON_REDIS_IMAGE")
	j.step("building redis's bundle, sealed")
	sealed, _ := e2e.Build(j, image)
	j.step("building redis's bundle, detached")
	detached, _ := e2e.Build(j, "--detached", image)
	kernel, own := e2e.LayerFile(j, sealed, bundle.KernelType), e2e.LayerFile(j, sealed, bundle.InitramfsType)
	initramfs := e2e.LayerFile(j, detached, bundle.InitramfsType)
	memory := fmt.Sprint(e2e.Inspect(j, sealed).Claims.Memory.Min >> 20)

	peer := "Debian's kernel"
	found, _ := filepath.Glob("/boot/vmlinuz-*-amd64")
	if len(found) > 0 {
		peer = "Debian's " + filepath.Base(slices.Max(found))
	}
	needs := []string{"qemu-system-x86_64"}
	return []series{{
		unit:   milliseconds,
		rounds: 5,
		subject: side{"tenon's sealed kernel", needs, func(t e2e.T) sample {
			_, took := qemu(t, bootedRE, "-m", memory, "-kernel", kernel, "-initrd", own)
			return took
		}},
		peers: []side{{peer, needs, func(t e2e.T) sample {
			if len(found) == 0 {
				t.Fatal("no kernel of Debian's package linux-image-amd64, run 'make deps'")
			}
			_, took := qemu(t, bootedRE, "-m", memory, "-kernel", slices.Max(found), "-initrd", initramfs,
				"-append", "console=ttyS0 quiet rdinit=/.tenon/init initramfs_options=size=90%")
			return took
		}}},
	}}
}
