// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/testdata/testbundle"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// kernelBytes is a kernel that is sealed to the initramfs of testbundle.
var kernelBytes = func() string {
	k, err := testbundle.Seal(testpe.Image([]byte("kernel")), []byte("initramfs"))
	if err != nil {
		panic(err)
	}
	return string(k)
}()

// newBundle writes a bundle to a new folder, detached when there is an
// initramfs.
func newBundle(t *testing.T, initramfs string, change func(*manifest.Manifest)) (path string, digest v1.Hash) {
	t.Helper()
	return newBundleOf(t, []byte(kernelBytes), initramfs, change)
}

func newBundleOf(t *testing.T, kernel []byte, initramfs string, change func(*manifest.Manifest)) (path string, digest v1.Hash) {
	t.Helper()
	path, digest, err := testbundle.Write(t.Context(), t.TempDir(), kernel, initramfs, change)
	if err != nil {
		t.Fatal(err)
	}
	return path, digest
}

func TestVerify(t *testing.T) {
	for _, initramfs := range []string{"", "initramfs"} {
		path, digest := newBundle(t, initramfs, nil)
		v, err := Verify(t.Context(), path, Policy{AllowUnsigned: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close()
		if v.Digest() != digest || v.Manifest().Name != "web" {
			t.Errorf("got %v, %+v", v.Digest(), v.Manifest())
		}
		// What was verified stays, whatever happens to the bundle.
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		for f, want := range map[*os.File]string{v.Kernel(): kernelBytes, v.Initramfs(): "initramfs"} {
			got, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
			if err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
			if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
				t.Errorf("writing to sealed memory: %v", err)
			}
			if err := f.Truncate(1); !errors.Is(err, unix.EPERM) {
				t.Errorf("cutting sealed memory: %v", err)
			}
			if _, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR|os.O_TRUNC, 0); err == nil {
				t.Error("sealed memory can be opened anew and cut")
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	flip := func(blob string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			names, err := filepath.Glob(path + "/blobs/sha256/*")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range names {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(data, []byte(blob)) {
					data[len(data)/2] ^= 1
					if err := os.WriteFile(name, data, 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
			}
			t.Fatalf("no blob has %q", blob)
		}
	}
	none := func(*testing.T, string) {}
	another := func(m *manifest.Manifest) { m.Initramfs.Digest = "sha256:" + strings.Repeat("1", 64) }
	sealed := func(m *manifest.Manifest) { m.Initramfs.Sealed = true }
	tests := []struct {
		name      string
		initramfs string
		change    func(*manifest.Manifest)
		damage    func(t *testing.T, path string)
		policy    Policy
		want      error
		text      string
	}{
		{"zero policy", "", nil, none, Policy{}, ErrUntrusted, "the policy trusts nobody"},
		{"flipped byte in the kernel", "", nil, flip(kernelBytes), Policy{AllowUnsigned: true}, bundle.ErrInvalid, "kernel.v1: digest mismatch"},
		{"flipped byte in the kernel, zero policy", "", nil, flip(kernelBytes), Policy{}, ErrRefused, ""},
		{"flipped byte in the initramfs", "initramfs", nil, flip("initramfs"), Policy{AllowUnsigned: true}, bundle.ErrInvalid, "digest mismatch"},
		{"flipped byte in the manifest", "", nil, flip(`"platform":`), Policy{AllowUnsigned: true}, bundle.ErrInvalid, "digest mismatch"},
		{"flipped byte in the OCI manifest", "", nil, flip(`"layers":`), Policy{AllowUnsigned: true}, bundle.ErrInvalid, "digest mismatch"},
		{"another initramfs than the manifest says", "initramfs", another, none, Policy{AllowUnsigned: true}, ErrRefused, "the manifest says sha256:1111"},
		{"sealed to another initramfs", "another one", sealed, none, Policy{AllowUnsigned: true}, seal.ErrOther, "sealed to one of 9 bytes"},
		{"no bundle", "", nil, func(t *testing.T, path string) {
			if err := os.Remove(path + "/index.json"); err != nil {
				t.Fatal(err)
			}
		}, Policy{AllowUnsigned: true}, bundle.ErrInvalid, "index.json"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path, _ := newBundle(t, test.initramfs, test.change)
			test.damage(t, path)
			v, err := Verify(t.Context(), path, test.policy, nil)
			if v != nil || !errors.Is(err, ErrRefused) || !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v", err)
			}
		})
	}
	// That something could not be read is no verdict.
	if _, err := Verify(t.Context(), t.TempDir()+"/missing", Policy{AllowUnsigned: true}, nil); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrRefused) {
		t.Errorf("missing: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path, _ := newBundle(t, "", nil)
	if _, err := Verify(ctx, path, Policy{AllowUnsigned: true}, nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrRefused) {
		t.Errorf("cancelled: %v", err)
	}
}

// That something fails on the way, here for too many open files, is no verdict
// either, wherever it happens.
func TestVerifyAccidents(t *testing.T) {
	dir, _ := newBundle(t, "initramfs", nil)
	archive := filepath.Join(t.TempDir(), "web.tar")
	b := new(bytes.Buffer)
	w := tar.NewWriter(b)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), os.WriteFile(archive, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	verify := func(path string, more int) error {
		free, err := unix.Dup(0) // the lowest descriptor that is free
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(free)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free + more), Max: before.Max}); err != nil {
			t.Fatal(err)
		}
		v, err := Verify(t.Context(), path, Policy{AllowUnsigned: true}, nil)
		if err == nil {
			v.Close()
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		return err
	}
	for _, path := range []string{dir, archive} {
		if err := verify(path, 100); err != nil { // and the runtime has what it needs open
			t.Fatal(err)
		}
		for more := 0; ; more++ {
			err := verify(path, more)
			if err == nil && more > 2 {
				break
			}
			if !errors.Is(err, unix.EMFILE) || errors.Is(err, ErrRefused) || errors.Is(err, bundle.ErrInvalid) {
				t.Errorf("%d descriptors: %v", more, err)
			}
			if more > 20 {
				t.Fatal("never enough")
			}
		}
	}
}

// A back end gets what was verified, whatever was done to an earlier copy, and
// an error for what was not.
func TestManifestIsACopy(t *testing.T) {
	path, _ := newBundle(t, "initramfs", nil)
	v, err := Verify(t.Context(), path, Policy{AllowUnsigned: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	m := v.Manifest()
	m.CommandLine, m.App.Entrypoint[0], m.Claims.Devices[0].Kind = "init=/bin/sh", "/evil", "x"
	if m = v.Manifest(); m.CommandLine != "quiet" || m.App.Entrypoint[0] != "/web" || m.Claims.Devices[0].Kind != "net" {
		t.Errorf("changed: %+v", m)
	}
	if err := new(Config).Resolve("qemu", new(Verified).Manifest()); err == nil || err.Error() != "the bundle was not verified" {
		t.Errorf("zero value: %v", err)
	}
}

func TestResolve(t *testing.T) {
	forward := []Forward{{"tcp", "127.0.0.1", 80, 80}}
	noNet := func(m *manifest.Manifest) { m.Claims.Devices = nil }
	tests := []struct {
		name    string
		backend manifest.Target
		change  func(*manifest.Manifest)
		config  Config
		claims  bool   // the error is ErrClaims
		want    string // part of the error, empty for none
	}{
		{"nothing given", "qemu", nil, Config{}, false, ""},
		{"all given", "qemu", nil, Config{Settings: Settings{CPUs: 4, Memory: 128 << 20, Env: map[string]string{"PORT": "80", "DEBUG": "true"}, Forwards: forward}}, false, ""},
		{"another target", "kexec", nil, Config{}, false, `bundle "web" is built for target qemu, back end kexec cannot boot it`},
		{"another architecture", "qemu", func(m *manifest.Manifest) { m.Platform = "linux/riscv64" }, Config{}, false, `bundle "web" is built for linux/riscv64, this host is linux/`},
		{"too few CPUs", "qemu", nil, Config{Settings: Settings{CPUs: 1}}, true, `"web" takes 2 to 4 CPUs, not 1`},
		{"too many CPUs", "qemu", nil, Config{Settings: Settings{CPUs: 5}}, true, "not 5"},
		{"CPUs to grow to", "qemu", nil, Config{Settings: Settings{CPUs: 3}, MaxCPUs: 4}, false, ""},
		{"too many to grow to", "qemu", nil, Config{Settings: Settings{CPUs: 3}, MaxCPUs: 5}, true, `"web" with 3 CPUs can get to 4, not 5`},
		{"fewer to grow to", "qemu", nil, Config{Settings: Settings{CPUs: 3}, MaxCPUs: 2}, true, "not 2"},
		{"negative CPUs", "qemu", nil, Config{Settings: Settings{CPUs: -1}}, true, "not -1"},
		{"too little memory", "qemu", nil, Config{Settings: Settings{Memory: 63 << 20}}, true, `"web" takes 64 to 128 MiB of memory, not 63`},
		{"a MiB too little", "qemu", nil, Config{Settings: Settings{Memory: 63 << 20}}, true, "not 63"},
		{"too much memory", "qemu", nil, Config{Settings: Settings{Memory: 129 << 20}}, true, "not 129"},
		{"negative memory", "qemu", nil, Config{Settings: Settings{Memory: -1}}, true, "MiB of memory"},
		{"port without a network", "qemu", noNet, Config{Settings: Settings{Forwards: forward}}, true, "no network interface"},
		{"no port without a network", "qemu", noNet, Config{}, false, ""},
		{"environment that is not declared", "qemu", nil, Config{Settings: Settings{Env: map[string]string{"LD_PRELOAD": "/evil"}}}, false, `LD_PRELOAD is not a parameter of "web"`},
		{"parameter of another type", "qemu", nil, Config{Settings: Settings{Env: map[string]string{"PORT": "http"}}}, false, `PORT: "http" is not of type int`},
		{"bool in another form", "qemu", nil, Config{Settings: Settings{Env: map[string]string{"DEBUG": "1"}}}, false, `DEBUG: "1" is not of type bool`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := testbundle.Manifest()
			if test.change != nil {
				test.change(m)
			}
			err := test.config.Resolve(test.backend, m)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrClaims) != test.claims {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if err == nil && (test.config.CPUs < 2 || test.config.MaxCPUs < test.config.CPUs || test.config.Memory < 64<<20) {
				t.Errorf("left open: %+v", test.config)
			}
		})
	}
}
