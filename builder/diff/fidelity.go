// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder"
)

// FidelityChange is a line of the fidelity report that only one side has: how
// its initramfs differs from the image. File capabilities show here, as the
// lost "xattr security.capability" of a path.
type FidelityChange struct {
	Kind string `json:"kind"`           // added (by the build), dropped (by the recipe), lost (the initramfs cannot hold it)
	Path string `json:"path,omitempty"` // of added and lost
	What string `json:"what,omitempty"` // of dropped and lost
	In   string `json:"in"`             // a or b
}

func compareFidelity(a, b *builder.Fidelity) []FidelityChange {
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

func lines(f *builder.Fidelity) []FidelityChange {
	var out []FidelityChange
	for _, path := range f.Added {
		out = append(out, FidelityChange{Kind: "added", Path: path})
	}
	for _, d := range f.Dropped {
		out = append(out, FidelityChange{Kind: "dropped", What: fmt.Sprintf("%d entries, %d bytes by recipe %s", d.Entries, d.Bytes, d.Recipe)})
	}
	for _, l := range f.Lost {
		out = append(out, FidelityChange{Kind: "lost", Path: l.Path, What: l.What})
	}
	return out
}
