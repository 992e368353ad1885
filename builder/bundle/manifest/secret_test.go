// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestMasked(t *testing.T) {
	text := func(s string) *string { return &s }
	m := &Manifest{
		App: App{Env: []string{"TOKEN=hunter1", "TOKENS=seen", "OTHER=seen"}},
		Parameters: []Parameter{
			{Name: "TOKEN", Type: "string", Default: text("hunter2"), Secret: true}, {Name: "NONE", Type: "string", Secret: true}, {Name: "OTHER", Type: "string", Default: text("seen")},
		},
	}
	before, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := json.Marshal(m.Masked())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(shown), "hunter") || strings.Count(string(shown), Mask) != 2 || strings.Count(string(shown), "seen") != 3 {
		t.Errorf("got %s", shown)
	}
	if after, err := json.Marshal(m); err != nil || string(after) != string(before) {
		t.Errorf("the manifest itself changed: %s, %v", after, err)
	}
}
