// SPDX-License-Identifier: Apache-2.0

package kconfig

import "fmt"

func (x explainer) unknown(name string) string {
	text := "unknown symbol (not defined in this kernel's Kconfig"
	if near := x.nearest(name); near != "" {
		text += fmt.Sprintf("; did you mean %s?", near)
	}
	return text + ")"
}

// nearest returns the defined symbol that is at most two edits away, the first
// by name of those that are equally near.
func (x explainer) nearest(name string) string {
	best, nearest := 3, ""
	if len(name) < 5 || len(name) > 80 {
		return "" // short names are all near each other
	}
	for other := range x.tree.symbols {
		if x.tree.lookup(other) == nil || len(other)-len(name) > 2 || len(name)-len(other) > 2 {
			continue
		}
		if d := distance(name, other); d < best || d == best && other < nearest {
			best, nearest = d, other
		}
	}
	return nearest
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
