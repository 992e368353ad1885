// SPDX-License-Identifier: Apache-2.0

package rootfs_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/testdata/corpus"
)

// headings are those of layer.md in the image specification, version 1.1.1.
var headings = []string{
	"# Image Layer Filesystem Changeset",
	"## `+gzip` Media Types",
	"## `+zstd` Media Types",
	"## Distributable Format",
	"## Change Types",
	"### File Types",
	"### File Attributes",
	"#### Hardlinks",
	"#### Platform-specific attributes",
	"## Creating",
	"### Initial Root Filesystem",
	"### Populate Initial Filesystem",
	"### Populate a Comparison Filesystem",
	"### Determining Changes",
	"### Representing Changes",
	"## Applying Changesets",
	"### Changeset over existing files",
	"## Whiteouts",
	"### Opaque Whiteout",
	"## Non-Distributable Layers",
}

// TestDocs holds docs/layers.md to the specification's headings and to the
// corpus, which have each other's cases: every one named exists, and none is
// there for no rule.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/layers.md")
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]bool{} // named
	for _, c := range corpus.Cases() {
		cases[c.Name] = false
	}
	title := "# Layers"
	rules := map[string]int{}
	word := regexp.MustCompile("`([a-z0-9.-]+)`")
	for line := range strings.Lines(string(doc)) {
		line = strings.TrimSpace(line)
		cells := strings.Split(line, " | ")
		switch {
		case strings.HasPrefix(line, "#"):
			title = line
		case strings.HasPrefix(line, "| ") && line != "| rule | cases |":
			rules[title]++
			for _, name := range word.FindAllStringSubmatch(cells[len(cells)-1], -1) {
				if _, ok := cases[name[1]]; !ok {
					t.Errorf("%s: there is no case %s", title, name[1])
				}
				cases[name[1]] = true
			}
		}
	}
	for name, named := range cases {
		if !named {
			t.Errorf("no rule names %s", name)
		}
	}
	for _, h := range headings {
		// Ours has a title of its own, so that theirs is one level down.
		if rules[h] == 0 && rules["#"+h] == 0 {
			t.Errorf("no rules under %q", h)
		}
	}
	for title := range rules {
		if !slices.Contains(headings, title) && !slices.Contains(headings, title[1:]) {
			t.Errorf("the specification has no heading %q", title)
		}
	}
}
