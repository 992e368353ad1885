// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// tarball makes an archive; names that end in a slash are folders, contents
// that begin with an arrow are links.
func tarball(t *testing.T, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		name, data := files[i], files[i+1]
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o664, ModTime: time.Unix(1e9, 0)}
		switch {
		case strings.HasSuffix(name, "/"):
			h.Typeflag = tar.TypeDir
		case strings.HasPrefix(data, "-> "):
			h.Typeflag, h.Linkname = tar.TypeSymlink, data[3:]
		case strings.HasPrefix(data, "=> "):
			h.Typeflag, h.Linkname = tar.TypeLink, data[3:]
		case data == "(fifo)":
			h.Typeflag = tar.TypeFifo
		case data == "(header)":
			h = &tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: name, PAXRecords: map[string]string{"comment": "commit"}}
		default:
			h.Size = int64(len(data))
			if strings.HasPrefix(data, "#!") {
				h.Mode = 0o775
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func kernelTarball(t *testing.T) []byte {
	return tarball(t, "pax_global_header", "(header)", "linux-6.1/", "", "linux-6.1/Kconfig", "mainmenu\n",
		"linux-6.1/scripts/run.sh", "#!/bin/sh\n", "linux-6.1/include/dt", "-> ../scripts", "linux-6.1/second", "=> linux-6.1/Kconfig")
}

func gz(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(data, nil)
}

// through pipes data through a program, or skips.
func through(t *testing.T, data []byte, program string) []byte {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(program, "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOpenSourceTarball(t *testing.T) {
	plain := kernelTarball(t)
	forms := map[string]func(t *testing.T) []byte{
		"tar": func(*testing.T) []byte { return plain },
		"gz":  func(t *testing.T) []byte { return gz(t, plain) },
		"zst": func(t *testing.T) []byte { return zst(t, plain) },
		"xz":  func(t *testing.T) []byte { return through(t, plain, "xz") },
		"bz2": func(t *testing.T) []byte { return through(t, plain, "bzip2") },
		"dot": func(t *testing.T) []byte {
			return tarball(t, "./linux/", "", "./linux/Kconfig", "mainmenu\n", "./linux/scripts/run.sh", "#!/bin/sh\n", "./linux/include/dt", "-> ../scripts", "./linux/second", "=> ./linux/Kconfig")
		},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			data := form(t)
			c := openCache(t, t.TempDir())
			path := write(t, filepath.Join(t.TempDir(), "linux.tar.x"), string(data)) // the name does not tell
			s, err := OpenSource(t.Context(), c, path)
			if err != nil {
				t.Fatal(err)
			}
			for file, want := range map[string]string{"Kconfig": "mainmenu\n", "second": "mainmenu\n", "include/dt/run.sh": "#!/bin/sh\n"} {
				if got, err := os.ReadFile(filepath.Join(s.Dir, file)); err != nil || string(got) != want {
					t.Errorf("%s: %q, %v", file, got, err)
				}
			}
			info, err := os.Stat(filepath.Join(s.Dir, "scripts/run.sh"))
			if err != nil || info.Mode()&0o100 == 0 || !info.ModTime().Equal(time.Unix(1e9, 0)) {
				t.Errorf("%v, %v", info, err)
			}
			if got := names(t, c.Path("tmp", "")); len(got) != 0 {
				t.Errorf("left %v", got)
			}
			// Once it is in the cache, only its digest is asked for.
			again, err := OpenSource(canceled(t), c, path)
			if err != nil || *again != *s || !strings.HasPrefix(s.Digest, "sha256:") {
				t.Errorf("%v, %v", again, err)
			}
		})
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestOpenSourceRefuses(t *testing.T) {
	plain := kernelTarball(t)
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"no kernel", tarball(t, "a/", "", "a/README", "x"), "not a kernel source tree: no Kconfig at its top"},
		{"no top folder", tarball(t, "Kconfig", "x"), "not a kernel source tree"},
		{"empty file", nil, "too short for an archive"},
		{"text", []byte(strings.Repeat("text ", 1000)), "invalid tar header"},
		{"cut short", plain[:bytes.Index(plain, []byte("mainmenu"))+4], "unexpected EOF"},
		{"gz cut short", gz(t, plain)[:100], "unexpected EOF"},
		{"gz cut short at its end", gz(t, plain)[:len(gz(t, plain))-4], "unexpected EOF"},
		{"zst cut short", zst(t, plain)[:len(zst(t, plain))-5], ""},
		{"name that leads outside", tarball(t, "l/Kconfig", "x", "l/../../../evil", "x"), ""},
		{"link that leads outside", tarball(t, "l/Kconfig", "x", "l/out", "-> ../../..", "l/out/evil", "x"), "escapes"},
		{"hard link to the outside", tarball(t, "l/Kconfig", "x", "l/passwd", "=> /etc/passwd"), ""},
		{"file twice", tarball(t, "l/Kconfig", "x", "l/Kconfig", "y"), "exists"},
		{"device", tarball(t, "l/Kconfig", "x", "l/pipe", "(fifo)"), `l/pipe: entry type '6'`},
	}
	if _, err := exec.LookPath("xz"); err == nil {
		packed := through(t, plain, "xz")
		tests = append(tests, []struct {
			name string
			data []byte
			want string
		}{
			{"xz cut short", packed[:len(packed)/2], ""},
			{"xz cut short at its end", packed[:len(packed)-8], "xz: exit status 1: "},
			{"xz of other content", append(slices.Clone(packed[:len(packed)-20]), packed[:20]...), "xz: exit status 1: "},
		}...)
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := openCache(t, t.TempDir())
			path := write(t, filepath.Join(t.TempDir(), "linux.tar"), string(test.data))
			_, err := OpenSource(t.Context(), c, path)
			if err == nil || !strings.HasPrefix(err.Error(), `kernel source "`+path+`": `) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if tmp, source := names(t, c.Path("tmp", "")), names(t, c.Path("source", "")); len(tmp)+len(source) != 0 {
				t.Errorf("left %v and %v", tmp, source)
			}
		})
	}
	c := openCache(t, t.TempDir())
	for _, spec := range []string{"debian:0.0", filepath.Join(t.TempDir(), "missing"), ""} {
		if _, err := OpenSource(t.Context(), c, spec); !errors.Is(err, ErrNoSource) || !strings.Contains(err.Error(), `"`+spec+`"`) {
			t.Errorf("%q: %v", spec, err)
		}
	}
	path := write(t, filepath.Join(t.TempDir(), "linux.tar"), string(plain))
	if _, err := OpenSource(canceled(t), c, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// kernelFolder writes a source tree.
func kernelFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write(t, dir+"/Kconfig", "mainmenu\n")
	write(t, dir+"/scripts/run.sh", "#!/bin/sh\n")
	if err := errors.Join(os.Chmod(dir+"/scripts/run.sh", 0o755), os.Symlink("../scripts", dir+"/scripts/self"), os.Mkdir(dir+"/empty", 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpenSourceFolder(t *testing.T) {
	open := func(dir string) string {
		t.Helper()
		s, err := OpenSource(t.Context(), openCache(t, t.TempDir()), dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.Dir + "/.git"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf(".git was copied: %v", err)
		}
		if _, err := os.Stat(s.Dir + "/Kconfig"); err != nil {
			t.Error(err)
		}
		return s.Digest
	}
	want := open(kernelFolder(t))
	t.Run("does not depend on", func(t *testing.T) {
		for name, change := range map[string]func(dir string) error{
			"path":  func(string) error { return nil },
			"mtime": func(dir string) error { return os.Chtimes(dir+"/Kconfig", time.Now(), time.Unix(5, 0)) },
			"mode": func(dir string) error {
				return errors.Join(os.Chmod(dir+"/Kconfig", 0o600), os.Chmod(dir+"/scripts/run.sh", 0o700))
			},
			"umask": func(dir string) error {
				old := syscall.Umask(0o077)
				t.Cleanup(func() { syscall.Umask(old) })
				return os.WriteFile(dir+"/Kconfig", []byte("mainmenu\n"), 0o666)
			},
			".git":           func(dir string) error { write(t, dir+"/.git/HEAD", "x"); return nil },
			".git of a tree": func(dir string) error { write(t, dir+"/.git", "gitdir: x"); return nil },
		} {
			t.Run(name, func(t *testing.T) {
				dir := kernelFolder(t)
				if err := change(dir); err != nil {
					t.Fatal(err)
				}
				if got := open(dir); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
			})
		}
	})
	t.Run("depends on", func(t *testing.T) {
		seen := map[string]string{want: "the folder itself"}
		for name, change := range map[string]func(dir string) error{
			"content":    func(dir string) error { write(t, dir+"/Kconfig", "mainMenu\n"); return nil },
			"name":       func(dir string) error { return os.Rename(dir+"/scripts/run.sh", dir+"/scripts/walk.sh") },
			"place":      func(dir string) error { return os.Rename(dir+"/scripts/run.sh", dir+"/run.sh") },
			"one more":   func(dir string) error { write(t, dir+"/more", ""); return nil },
			"executable": func(dir string) error { return os.Chmod(dir+"/Kconfig", 0o755) },
			"link target": func(dir string) error {
				return errors.Join(os.Remove(dir+"/scripts/self"), os.Symlink("../Kconfig", dir+"/scripts/self"))
			},
			"kind": func(dir string) error {
				return errors.Join(os.Remove(dir+"/empty"), os.WriteFile(dir+"/empty", nil, 0o644))
			},
			".git inside": func(dir string) error { write(t, dir+"/scripts/.git", ""); return nil },
		} {
			dir := kernelFolder(t)
			if err := change(dir); err != nil {
				t.Fatal(err)
			}
			got := open(dir)
			if other := seen[got]; other != "" {
				t.Errorf("%s: the same digest as %s", name, other)
			}
			seen[got] = name
		}
	})
	if _, err := OpenSource(t.Context(), openCache(t, t.TempDir()), t.TempDir()); err == nil || !strings.Contains(err.Error(), "not a kernel source tree") {
		t.Errorf("an empty folder: %v", err)
	}
}

// What is not part of the source is not even read: .git can have gigabytes.
func TestCopyTree(t *testing.T) {
	dir := kernelFolder(t)
	write(t, dir+"/.git/HEAD", "x")
	if err := syscall.Mkfifo(dir+"/.git/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource(t.Context(), openCache(t, t.TempDir()), dir); err != nil {
		t.Error(err)
	}
	to := t.TempDir()
	if err := copyTree(canceled(t), dir, to, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if got := names(t, to); len(got) != 0 {
		t.Errorf("cancelled, and yet copied %v", got)
	}
	if err := syscall.Mkfifo(dir+"/fifo", 0o644); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(t.Context(), dir, to, ""); err == nil || !strings.Contains(err.Error(), "fifo: entry type '6' does not belong into a source tree") {
		t.Errorf("fifo: %v", err)
	}
}

// The cache must not have a source under the digest of another one.
func TestOpenSourceThatChanges(t *testing.T) {
	dir := kernelFolder(t)
	tarball := write(t, filepath.Join(t.TempDir(), "linux.tar"), string(kernelTarball(t)))
	for _, test := range []struct {
		path   string
		digest func(context.Context, string) (string, error)
		change func()
	}{
		{dir, digestTree, func() { write(t, filepath.Join(dir, "Kconfig"), "another") }},
		{tarball, digestFile, func() { write(t, tarball, string(kernelTarball(t))+strings.Repeat("\x00", 512)) }},
	} {
		cache := openCache(t, t.TempDir())
		digest, err := test.digest(t.Context(), test.path)
		if err != nil {
			t.Fatal(err)
		}
		lock, err := cache.lock(t.Context(), "source", digest)
		if err != nil {
			t.Fatal(err)
		}
		opened := make(chan error)
		go func() {
			_, err := OpenSource(t.Context(), cache, test.path)
			opened <- err
		}()
		time.Sleep(100 * time.Millisecond) // it has the digest, and waits for the lock
		test.change()
		lock.Close()
		if err := <-opened; !errors.Is(err, errChanged) {
			t.Errorf("%s: %v", test.path, err)
		}
		if got := append(names(t, cache.Path("source", "")), names(t, cache.Path("tmp", ""))...); len(got) != 0 {
			t.Errorf("left %v", got)
		}
	}
}

func TestOpenSourceAtOnce(t *testing.T) {
	cache := t.TempDir()
	path := write(t, filepath.Join(t.TempDir(), "linux.tar"), string(kernelTarball(t)))
	sources := make([]*Source, 4)
	errs := make([]error, len(sources))
	caches := make([]*Cache, len(sources))
	for i := range caches {
		caches[i] = openCache(t, cache)
	}
	var wg sync.WaitGroup
	for i := range sources {
		wg.Go(func() { sources[i], errs[i] = OpenSource(t.Context(), caches[i], path) })
	}
	wg.Wait()
	for i := range sources {
		if errs[i] != nil || *sources[i] != *sources[0] {
			t.Errorf("%v, %v", sources[i], errs[i])
		}
	}
	if got := names(t, filepath.Join(cache, "source")); len(got) != 1 {
		t.Errorf("entries: %v", got)
	}
	if got := names(t, filepath.Join(cache, "tmp")); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
