// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/fidelity"
)

// FidelityChange is a line of the fidelity report that only one side has: how
// its initramfs differs from the image. What extended attributes a file has is
// compared with the files.
type FidelityChange struct {
	Kind string `json:"kind"`           // added (by the build), dropped (by the recipe or a waiver), changed (by a waiver)
	Path string `json:"path,omitempty"` // of what is not a recipe's
	What string `json:"what,omitempty"` // of dropped and changed
	In   string `json:"in"`             // a or b
}

func compareFidelity(a, b *fidelity.Report) []FidelityChange {
	out := []FidelityChange{}
	onlyIn(lines(a), lines(b), func(c FidelityChange, in string) {
		c.In = in
		out = append(out, c)
	})
	slices.SortStableFunc(out, func(x, y FidelityChange) int {
		return cmp.Or(strings.Compare(x.Kind, y.Kind), strings.Compare(x.Path, y.Path), strings.Compare(x.What, y.What))
	})
	return out
}

func lines(f *fidelity.Report) []FidelityChange {
	var out []FidelityChange
	for _, path := range f.Added {
		out = append(out, FidelityChange{Kind: "added", Path: path})
	}
	for _, d := range f.Dropped {
		out = append(out, FidelityChange{Kind: "dropped", Path: d.Path, What: fmt.Sprintf("%d entries, %d bytes by %s", d.Entries, d.Bytes, d.By)})
	}
	for _, c := range f.Changed {
		out = append(out, FidelityChange{Kind: "changed", Path: c.Path, What: c.What + ", by " + c.By})
	}
	return out
}
