// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tenon-build/tenon/kconfig"
)

// treeWithDrivers puts a source with a list of drivers into a cache.
func treeWithDrivers(t *testing.T, c *Cache, more ...string) *Source {
	t.Helper()
	files := append([]string{
		"l/", "", "l/Kconfig", "source \"drivers/Kconfig\"\n", "l/init/main.c", "int x;\n",
		"l/drivers/Kconfig", "menu \"Device Drivers\"\nendmenu\n", "l/drivers/Makefile", "obj-y += char/", // no newline at its end
	}, more...)
	s, err := OpenSource(t.Context(), c, write(t, filepath.Join(t.TempDir(), "linux.tar"), string(tarball(t, files...))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func driverFiles() fstest.MapFS {
	return fstest.MapFS{
		"Kconfig":      {Data: []byte("config TEST\n\tbool \"Test\"\n")},
		"Makefile":     {Data: []byte("obj-$(CONFIG_TEST) += test.o\n")},
		"test.c":       {Data: []byte("int y;\n"), Mode: 0o600},
		"more/depth.h": {Data: []byte("int z;\n")},
	}
}

func TestWith(t *testing.T) {
	c := openCache(t, t.TempDir())
	plain := treeWithDrivers(t, c)
	before := contents(t, plain.Dir)
	s, err := plain.With(t.Context(), c, Driver{"test", driverFiles()})
	if err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(before)
	maps.Copy(want, map[string]string{
		"drivers/Kconfig":           "menu \"Device Drivers\"\nendmenu\nsource \"drivers/test/Kconfig\"\n",
		"drivers/Makefile":          "obj-y += char/\nobj-y += test/\n",
		"drivers/test/Kconfig":      "config TEST\n\tbool \"Test\"\n",
		"drivers/test/Makefile":     "obj-$(CONFIG_TEST) += test.o\n",
		"drivers/test/test.c":       "int y;\n",
		"drivers/test/more/depth.h": "int z;\n",
	})
	if got := contents(t, s.Dir); !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := contents(t, plain.Dir); !maps.Equal(got, before) {
		t.Errorf("the original now is %q, was %q", got, before)
	}
	if same(t, s.Dir+"/drivers/Makefile", plain.Dir+"/drivers/Makefile") || !same(t, s.Dir+"/init/main.c", plain.Dir+"/init/main.c") {
		t.Error("not what is changed is a file of its own, and that alone")
	}
	request := &kconfig.Request{Settings: []kconfig.Setting{{Symbol: "TEST", Value: "y"}}}
	if err := check([]byte("CONFIG_TEST=y\n"), request, s); err != nil {
		t.Errorf("the driver's symbol: %v", err)
	}
	if err := check([]byte("CONFIG_TEST=y\n"), request, plain); err == nil {
		t.Error("the original knows the driver's symbol")
	}
	if got := names(t, c.Path("tmp", "")); len(got) != 0 {
		t.Errorf("left %v", got)
	}
	again, err := plain.With(canceled(t), c, Driver{"test", driverFiles()})
	if err != nil || *again != *s {
		t.Errorf("again: %v, %v", again, err)
	}
}

func same(t *testing.T, a, b string) bool {
	t.Helper()
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if err := errors.Join(errX, errY); err != nil {
		t.Fatal(err)
	}
	return os.SameFile(x, y)
}

// contents reads all files of a folder.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		out[name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestWithDigest(t *testing.T) {
	c := openCache(t, t.TempDir())
	plain := treeWithDrivers(t, c)
	seen := map[string]string{plain.Digest: "no driver"}
	for name, change := range map[string]func(s **Source, d *Driver, files fstest.MapFS){
		"nothing": func(**Source, *Driver, fstest.MapFS) {},
		"name":    func(_ **Source, d *Driver, _ fstest.MapFS) { d.Name = "other" },
		"content": func(_ **Source, _ *Driver, f fstest.MapFS) { f["test.c"].Data = []byte("int Y;\n") },
		"file":    func(_ **Source, _ *Driver, f fstest.MapFS) { f["new.c"] = &fstest.MapFile{} },
		"rename":  func(_ **Source, _ *Driver, f fstest.MapFS) { f["tset.c"] = f["test.c"]; delete(f, "test.c") },
		"source": func(s **Source, _ *Driver, _ fstest.MapFS) {
			*s = treeWithDrivers(t, c, "l/README", "")
		},
	} {
		files, s := driverFiles(), plain
		d := Driver{"test", files}
		change(&s, &d, files)
		got, err := s.With(t.Context(), c, d)
		if err != nil {
			t.Fatal(err)
		}
		if other := seen[got.Digest]; other != "" {
			t.Errorf("%s: the same digest as %s", name, other)
		}
		seen[got.Digest] = name
	}
}

func TestWithRefuses(t *testing.T) {
	for _, test := range []struct {
		name, want string
		more       []string
	}{
		{"a driver of that name", "drivers/test: file already exists", []string{"l/drivers/test/Makefile", ""}},
		{"a link of that name", "drivers/test: file already exists", []string{"l/drivers/test", "-> ../.."}},
	} {
		c := openCache(t, t.TempDir())
		s := treeWithDrivers(t, c, test.more...)
		_, err := s.With(t.Context(), c, Driver{"test", driverFiles()})
		if want := "adding the driver test to kernel source " + s.Digest + ": " + test.want; err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", test.name, err, want)
		}
		if tmp, source := names(t, c.Path("tmp", "")), names(t, c.Path("source", "")); len(tmp) != 0 || len(source) != 1 {
			t.Errorf("%s: left %v and %v", test.name, tmp, source)
		}
	}
	c := openCache(t, t.TempDir())
	s, err := OpenSource(t.Context(), c, write(t, filepath.Join(t.TempDir(), "linux.tar"), string(kernelTarball(t))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.With(t.Context(), c, Driver{"test", driverFiles()}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "drivers/Kconfig") {
		t.Errorf("no list of drivers: %v", err)
	}
}
