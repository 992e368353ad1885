// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocs holds docs/keys.md to the table of profiles.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range profiles {
		name, constraints, extended := p.Name, "no CA", "code signing"
		if p.CA {
			constraints, extended = fmt.Sprintf("CA, path length %d", p.PathLen), "none"
		}
		if p.Name == Development {
			name += map[bool]string{true: " (CA)", false: " (leaf)"}[p.CA]
		}
		end := fmt.Sprintf("| %s | %s | %s | %d |", constraints, usageNames(p.usage()), extended, p.Days)
		found := false
		for line := range strings.Lines(string(doc)) {
			found = found || strings.HasPrefix(line, "| "+name+" |") && strings.HasSuffix(line, end+"\n")
		}
		if !found {
			t.Errorf("no row %q ends in %q", name, end)
		}
	}
	for _, name := range Algorithms() {
		if !strings.Contains(string(doc), name) {
			t.Errorf("no %s", name)
		}
	}
}
