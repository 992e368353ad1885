// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package diff_test

import (
	"archive/tar"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/builder/diff"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// TestE2EDiff compares sealed bundles by what is inside their kernels.
func TestE2EDiff(t *testing.T) {
	a := e2e.Probe(t)
	if o := e2e.Tenon(t, "diff", a, a); o.Code != 0 || o.Stdout+o.Stderr != "" {
		t.Errorf("with itself: %s", o)
	}
	changed := slices.Clone(e2e.ProbeFiles)
	changed[2].Mode, changed[2].Content = 0o755, []byte("kept, but not as it was")
	changed[3] = e2e.File{Header: tar.Header{Name: "linked", Typeflag: tar.TypeSymlink, Linkname: "kept"}}
	b, _ := e2e.Build(t, "-r", e2e.ProbeRecipe(), "--name", "probe", e2e.Image(t, nil, changed...))
	o := e2e.Tenon(t, "diff", "--format", "json", a, b)
	t.Logf("tenon diff took %s", o.Took.Round(time.Millisecond))
	var r diff.Report
	if err := json.Unmarshal([]byte(o.Stdout), &r); err != nil || o.Code != 1 || o.Stderr != "" {
		t.Fatalf("%v: %s", err, o)
	}
	var files []string
	for _, f := range r.Files {
		files = append(files, f.Path+": "+strings.Join(f.What, " "))
	}
	want := []string{"kept: content mode setuid links", "linked: type mode setuid owner links"}
	if !slices.Equal(files, want) || len(r.Options) != 0 {
		t.Errorf("files %q, want %q; options %v", files, want, r.Options)
	}
	text := e2e.Tenon(t, "diff", a, b)
	if !strings.Contains(text.Stdout, "NO LONGER SETUID, content 4 B to 23 B, mode 4755 to 0755") {
		t.Errorf("as text: %s", text)
	}
}
