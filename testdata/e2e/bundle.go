// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// Build builds a bundle and returns its path and digest.
func Build(t T, args ...string) (path, digest string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "out.tenon")
	o := Tenon(t, append([]string{"build", "-o", path}, args...)...)
	if o.Code != 0 {
		t.Fatalf("tenon build %q: %s", args, o)
	}
	t.Logf("tenon build %q took %s\n%s", args, o.Took.Round(time.Millisecond), o.Stderr)
	return path, strings.TrimSpace(o.Stdout)
}

// Recipe returns the path of a recipe of testdata/recipes.
func Recipe(name string) string { return Path("testdata/recipes/" + name + ".toml") }

// ProbeRecipe returns the path of the recipe of most images here.
func ProbeRecipe() string { return Recipe("probe") }

// Probe builds the probe's sealed bundle, once for all tests of a package.
func Probe(t T) string {
	t.Helper()
	return probe.get(t, "probe.tenon", func(path string) {
		copyTo(t, path, first(Build(t, "-r", ProbeRecipe(), "--name", "probe", Image(t, nil, ProbeFiles...))))
	})
}

// CokernelProbe builds the probe's bundle for a host beside which it runs.
func CokernelProbe(t T) string {
	t.Helper()
	return cokernelProbe.get(t, "probe.tenon", func(path string) {
		healthy := func(c *v1.Config) {
			c.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/bin/probe", "healthy"}, Interval: time.Second}
		}
		copyTo(t, path, first(Build(t, "-r", Recipe("cokernel"), "--name", "probe", Image(t, healthy, ProbeFiles...))))
	})
}

// Keys makes keys, once for all tests of a package, and returns their directory.
func Keys(t T) string {
	t.Helper()
	return keys.get(t, "keys", func(path string) {
		if o := Tenon(t, "key", "create", path); o.Code != 0 {
			t.Fatal(o)
		}
	})
}

// SignedProbe is the probe's bundle in a folder of its own, signed with Keys.
func SignedProbe(t T) (path, digest string) {
	t.Helper()
	path = Copy(t, Probe(t))
	o := Tenon(t, "sign", path, "--key", Keys(t)+"/signing.key")
	if o.Code != 0 {
		t.Fatal(o)
	}
	return path, strings.TrimSpace(o.Stdout)
}

// Copy copies a bundle into a folder of its own.
func Copy(t T, from string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "probe.tenon")
	copyTo(t, path, from)
	return path
}

func copyTo(t T, to, from string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func first(a, _ string) string { return a }

// What all tests of a package share; Clean removes it.
var probe, cokernelProbe, keys shared

// shared is something that outlives the first test that asked for it.
type shared struct {
	once sync.Once
	dir  string // empty: nobody asked for it
	path string // in dir; empty: it could not be made
}

func (s *shared) get(t T, name string, create func(path string)) string {
	t.Helper()
	Required(t, "TENON_BIN")
	s.once.Do(func() {
		s.dir = Must(os.MkdirTemp("", "tenon-e2e-"))
		path := filepath.Join(s.dir, name)
		create(path)
		s.path = path
	})
	if s.path == "" {
		t.Fatalf("%s was not made", name)
	}
	return s.path
}

// LayerFile copies a layer of a bundle into a file.
func LayerFile(t T, ref string, layer types.MediaType) string {
	t.Helper()
	b, err := bundle.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	r, err := b.OpenLayer(layer)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	return WriteFile(t, filepath.Join(t.TempDir(), "layer"), Must(io.ReadAll(r)))
}

// Inspect returns a bundle's manifest, as 'tenon inspect' prints it.
func Inspect(t T, ref string) *manifest.Manifest {
	t.Helper()
	o := Tenon(t, "inspect", "--format", "json", ref)
	var i struct{ Manifest manifest.Manifest }
	if err := json.Unmarshal([]byte(o.Stdout), &i); o.Code != 0 || err != nil {
		t.Fatalf("%v: %s", err, o)
	}
	return &i.Manifest
}
