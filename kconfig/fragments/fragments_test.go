// SPDX-License-Identifier: Apache-2.0

package fragments

import (
	"slices"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	names := Names()
	if len(names) == 0 || !slices.IsSorted(names) {
		t.Fatalf("names are %v", names)
	}
	for _, name := range names {
		f, err := Open(name)
		if err != nil {
			t.Error(err)
		} else if f.Name != "kconfig/fragments/"+name+".config" || len(f.Settings) == 0 {
			t.Errorf("%s has the name %s and %d settings", name, f.Name, len(f.Settings))
		}
	}
	for _, name := range []string{"nosuch", "", "../doc", "base.config"} {
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), "base, ") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
