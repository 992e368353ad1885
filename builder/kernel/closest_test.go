// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"path/filepath"
	"testing"
)

func TestClosest(t *testing.T) {
	home := t.TempDir()
	if got, err := closest(home, []byte("A=y\n")); got != "" || err != nil {
		t.Errorf("empty: got %q, %v", got, err)
	}
	for name, config := range map[string]string{
		"far": "X=y\nY=y\nZ=y\n", "near": "A=y\nB=y\nC=n\n", "much-more": "A=y\nB=y\nC=y\nD=y\nE=y\nF=y\n",
	} {
		if err := os.Mkdir(filepath.Join(home, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(home, name, ".config"), []byte(config), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// As many lines of a .config are empty, or have a # alone.
	for name, config := range map[string]string{"a": "A=y\n#\n\nB=y\n#\n\n#\n", "b": "A=y\n#\n\n#\n\nB=n\n", "z": "B=y\n#\n\n#\n#\n\n"} {
		dir := t.TempDir()
		for other, text := range map[string]string{"exact": config, "zz": "#\n\n#\n\n#\n\n#\n\n", "0": "#\n#\n#\n#\n"} {
			write(t, filepath.Join(dir, other, ".config"), text)
		}
		if got, err := closest(dir, []byte(config)); filepath.Base(got) != "exact" || err != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	// A build that is under way, without a configuration yet.
	if err := os.Mkdir(filepath.Join(home, "work"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := closest(home, []byte("A=y\nB=y\nC=y\n")); filepath.Base(got) != "near" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
