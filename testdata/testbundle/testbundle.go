// SPDX-License-Identifier: Apache-2.0

// Package testbundle makes bundles for tests, which nothing boots.
package testbundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// Manifest is that of a bundle with a network interface and two parameters.
func Manifest() *manifest.Manifest {
	digest := "sha256:" + strings.Repeat("0", 64)
	return &manifest.Manifest{
		Version: manifest.Version, Name: "web", Platform: "linux/amd64", Target: "qemu", CommandLine: "quiet",
		Kernel: manifest.Kernel{Release: "6.1.0", Source: digest, Config: digest}, Initramfs: manifest.Initramfs{Sealed: true, Digest: digest},
		App:        manifest.App{Entrypoint: []string{"/web"}},
		Parameters: []manifest.Parameter{{Name: "PORT", Type: "int"}, {Name: "DEBUG", Type: "bool"}},
		Claims: manifest.Claims{
			CPUs: manifest.Range{Min: 2, Max: 4}, Memory: manifest.Range{Min: 64 << 20, Max: 128 << 20},
			Devices: []manifest.Device{{Kind: "net", Count: manifest.Range{Min: 1, Max: 1}}},
		},
		Image: manifest.Image{Reference: "oci:web", Digest: digest},
	}
}

// Write writes a bundle into a folder, as web.tenon: detached when there is an initramfs, with
// its Manifest changed by change, which may be nil. Without one, the kernel is sealed to some
// initramfs, so it is of package flat or testpe, or nil.
func Write(ctx context.Context, dir string, kernel []byte, initramfs string, change func(*manifest.Manifest)) (path string, digest v1.Hash, err error) {
	c := bundle.Content{Manifest: Manifest(), Fidelity: []byte("{}")}
	if kernel == nil {
		kernel = testpe.Image(nil)
	}
	if c.Manifest.Initramfs.Sealed = initramfs == ""; c.Manifest.Initramfs.Sealed {
		initramfs = "initramfs"
		if kernel, err = Seal(kernel, []byte(initramfs)); err != nil {
			return "", v1.Hash{}, err
		}
	}
	c.Manifest.Initramfs.Digest, c.Manifest.Initramfs.Size = fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(initramfs))), int64(len(initramfs))
	if change != nil {
		change(c.Manifest)
	}
	for _, f := range []struct {
		into *string
		name string
		data []byte
	}{{&c.Kernel, "bzImage", kernel}, {&c.Config, "config", Config()}, {&c.SystemMap, "map", []byte("m")}, {&c.Initramfs, "initramfs", []byte(initramfs)}} {
		*f.into = filepath.Join(dir, f.name)
		if err := os.WriteFile(*f.into, f.data, 0o644); err != nil {
			return "", v1.Hash{}, err
		}
	}
	b, err := bundle.New(c)
	if err != nil {
		return "", v1.Hash{}, err
	}
	path = filepath.Join(dir, "web.tenon")
	return path, b.Digest, b.Save(ctx, path, nil)
}

// Config is a .config of which a sealed kernel may be made that has the command line of Manifest.
func Config() []byte {
	out := []byte("CONFIG_CMDLINE=\"quiet\"\n")
	for _, symbol := range seal.On {
		out = fmt.Appendf(out, "CONFIG_%s=y\n", symbol)
	}
	return out
}

// Seal returns a kernel that is sealed to an initramfs.
func Seal(kernel, initramfs []byte) ([]byte, error) {
	s, err := seal.Of(bytes.NewReader(initramfs), int64(len(initramfs)))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = seal.Write(&out, bytes.NewReader(kernel), int64(len(kernel)), s)
	return out.Bytes(), err
}
