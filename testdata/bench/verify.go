// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// verify compares 'tenon verify', which reads every byte and checks all signatures, with
// openssl's digest of the bundle's initramfs, which is most of those bytes.
func verify(j *job) []series {
	large := incompressible(j, "large", 95)
	initramfs := e2e.LayerFile(j, large, bundle.InitramfsType)
	return []series{{
		what:   fmt.Sprintf("verify a bundle with an initramfs of %d MiB", size(j, initramfs)>>20),
		unit:   milliseconds,
		rounds: 11,
		subject: side{"tenon verify", nil, func(t e2e.T) sample {
			return took(t, e2e.Command(t, e2e.Program(t, "tenon"), "verify", "--cert", e2e.Keys(t)+"/ca.crt", large))
		}},
		peers: []side{{"openssl dgst -sha256", []string{"openssl"}, func(t e2e.T) sample {
			return took(t, e2e.Command(t, "openssl", "dgst", "-sha256", initramfs))
		}}},
	}}
}

// incompressible builds a sealed and signed bundle of busybox and of that many MiB that
// cannot be compressed.
func incompressible(j *job, name string, mib int64) (path string) {
	dir := j.TempDir()
	rootfs := filepath.Join(dir, "rootfs")
	err := os.MkdirAll(filepath.Join(rootfs, "bin"), 0o755)
	if err != nil {
		j.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		j.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(rootfs, "bin/busybox"), busybox, 0o755); err != nil {
		j.Fatal(err)
	}
	random, err := io.ReadAll(io.LimitReader(rand.NewChaCha8([32]byte{}), mib<<20))
	if err != nil {
		j.Fatal(err)
	}
	e2e.WriteFile(j, filepath.Join(rootfs, "random"), random)
	recipe := e2e.Tenon(j, "recipe", "show", "redis")
	if recipe.Code != 0 {
		j.Fatal(recipe)
	}
	text := strings.Replace(recipe.Stdout, "[match]", "[app]\nentrypoint = [\"/bin/busybox\"]\n\n[match]", 1)
	file := e2e.WriteFile(j, filepath.Join(dir, "random.toml"), []byte(text))
	key := e2e.Keys(j) + "/signing.key"
	j.step("building a bundle with %d MiB that cannot be compressed", mib)
	path, _ = e2e.Build(j, "-r", file, "--name", name, "--key", key, "dir:"+rootfs)
	return path
}

// size is a file's.
func size(t e2e.T, path string) sample {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return sample(info.Size())
}
