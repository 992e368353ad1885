// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocs holds docs/mortise.md to the program: all verbs and no others, and a
// configuration that can be read.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/mortise.md")
	if err != nil {
		t.Fatal(err)
	}
	_, verbs, _ := strings.Cut(string(doc), "## Verbs")
	verbs, _, _ = strings.Cut(verbs, "\nExit status")
	var listed, have []string
	for line := range strings.Lines(verbs) {
		if cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | "); strings.HasPrefix(cell, "`") {
			for _, m := range regexp.MustCompile("`([a-z]+)[^`]*`").FindAllStringSubmatch(cell, -1) {
				listed = append(listed, m[1])
			}
		}
	}
	for _, c := range newApp(io.Discard, io.Discard).newRootCmd().Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" && c.Name() != "completion" {
			have = append(have, c.Name())
		}
	}
	slices.Sort(listed)
	slices.Sort(have)
	if !slices.Equal(listed, have) {
		t.Errorf("docs: %q\nprogram: %q", listed, have)
	}
	_, config, _ := strings.Cut(string(doc), "```toml\n")
	config, _, _ = strings.Cut(config, "```")
	if c, err := parseConfig([]byte(config), "/etc/mortise"); err != nil || c.accel != "kvm" || c.policy != "/etc/mortise/policy.toml" || c.registries != "/etc/mortise/registries.toml" || c.reserve.Memory != 2<<30 {
		t.Errorf("%v, %+v", err, c)
	}
}
