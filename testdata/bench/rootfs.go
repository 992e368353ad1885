// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// rootfs compares 'tenon rootfs', which checks both digests of the layer, with umoci, cpio and
// zstd, which check one, and with gzip, bsdtar and zstd, which check nothing.
func rootfs(j *job) []series {
	image, dir := e2e.Required(j, "TENON_NGINX_IMAGE"), j.TempDir()
	layer := e2e.Largest(j, image+"/blobs/sha256") // its only one
	out := func(name string) string { return filepath.Join(dir, name+".cpio.zst") }
	pack := func(name string) []string { return []string{"-q", "-f", "-3", "-T2", "-o", out(name)} }
	unpacked := filepath.Join(dir, "unpacked")

	byTenon := func(t e2e.T) sample {
		return took(t, e2e.Command(t, e2e.Program(t, "tenon"), "rootfs", "oci:"+image, "-o", out("tenon"),
			"--allow-drop", "usr/bin/ping", "--allow-drop", "*/usr/bin/ping"))
	}
	byUmoci := func(t e2e.T) sample {
		if err := os.RemoveAll(unpacked); err != nil { // of the round before
			t.Fatal(err)
		}
		unpack := took(t, e2e.Command(t, "umoci", "unpack", "--image", image+":latest", unpacked))
		find, cpio := e2e.Command(t, "find", "."), e2e.Command(t, "cpio", "-o", "-H", "newc", "--quiet")
		find.Dir, cpio.Dir = unpacked+"/rootfs", unpacked+"/rootfs"
		return unpack + took(t, find, cpio, e2e.Command(t, "zstd", pack("umoci")...))
	}
	byBsdtar := func(t e2e.T) sample {
		return took(t, e2e.Command(t, "gzip", "-dc", layer), e2e.Command(t, "bsdtar", "-cf", "-", "--format", "newc", "@-"),
			e2e.Command(t, "zstd", pack("bsdtar")...))
	}
	return []series{{
		unit:    milliseconds,
		rounds:  9,
		subject: side{"tenon rootfs", nil, byTenon},
		peers: []side{
			{"umoci unpack | cpio | zstd -3", []string{"umoci", "find", "cpio", "zstd"}, byUmoci},
			{"gzip | bsdtar | zstd -3", []string{"gzip", "bsdtar", "zstd"}, byBsdtar},
		},
	}, {
		what:    "size of that initramfs",
		unit:    mebibytes,
		rounds:  1,
		subject: side{"tenon rootfs", nil, func(t e2e.T) sample { return size(t, out("tenon")) }},
		peers:   []side{{"gzip | bsdtar | zstd -3", nil, func(t e2e.T) sample { return size(t, out("bsdtar")) }}},
	}}
}
