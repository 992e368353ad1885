// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// What is embedded is all that is compiled, and no more.
func TestFiles(t *testing.T) {
	var sources, headers []string
	err := fs.WalkDir(Files(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(Files(), name)
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(string(data), "\n")
		if !strings.Contains(first, "SPDX-License-Identifier: GPL-2.0-only") {
			t.Errorf("%s begins with %q", name, first)
		}
		switch path.Ext(name) {
		case ".c":
			sources = append(sources, strings.TrimSuffix(name, ".c")+".o")
		case ".h":
			headers = append(headers, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := fs.ReadFile(Files(), "Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(data), "obj-$(CONFIG_TENON_COKERNEL) += ")
	objects := strings.Fields(list)
	slices.Sort(objects)
	if !slices.Equal(objects, sources) || len(objects) == 0 {
		t.Errorf("the Makefile has %v, the sources are for %v", objects, sources)
	}
	if !slices.Contains(headers, "zone.h") || !slices.Contains(headers, "ring.h") {
		t.Errorf("the headers are %v", headers)
	}
}
