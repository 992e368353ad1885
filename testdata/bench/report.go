// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
)

// row is a line of the table: what was measured of the subject, or, where there is a peer,
// of that peer, and how the subject compares with it. A row with an error has no numbers.
type row struct {
	Comparison string `json:"comparison"`
	What       string `json:"what"`
	Subject    string `json:"subject,omitempty"` // empty: the whole comparison fails
	Peer       string `json:"peer,omitempty"`
	Unit       string `json:"unit,omitempty"`
	spread
	Rounds int `json:"rounds,omitempty"`
	ratio
	Error string `json:"error,omitempty"`
}

// writeJSON writes an array with an object a row.
func writeJSON(w io.Writer, rows []row) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(rows)
}

// Widths of the table and of its first column.
const (
	tableWidth = 110
	nameWidth  = 46
)

// writeTable writes a heading for each series, and a line a row.
func writeTable(w io.Writer, rows []row) error {
	var out strings.Builder
	line := func(format string, args ...any) {
		text := strings.TrimRight(fmt.Sprintf(format, args...), " ")
		out.WriteString(fit(text, tableWidth) + "\n")
	}
	const format = "  %-*s%9s%9s%9s %-4s%6s%8s  %s"
	line(format, nameWidth, "", "MEDIAN", "MIN", "MAX", "", "ROUNDS", "RATIO", "MIN-MAX")
	last := ""
	for _, r := range rows {
		if heading := r.Comparison + ": " + r.What; heading != last {
			line("%s", heading)
			last = heading
		}
		name := r.Subject
		if r.Peer != "" {
			name = r.Peer
		}
		name = fit(name, nameWidth)
		if r.Error != "" {
			line("  %-*s error: %s", nameWidth, name, strings.Join(strings.Fields(r.Error), " "))
			continue
		}
		ratio, pairs := "", ""
		if r.Ratio > 0 {
			ratio, pairs = short(r.Ratio), short(r.RatioMin)+"-"+short(r.RatioMax)
		}
		line(format, nameWidth, name, short(r.Median), short(r.Min), short(r.Max), r.Unit, fmt.Sprint(r.Rounds), ratio, pairs)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// fit cuts what is longer than n characters.
func fit(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-3]) + "..."
	}
	return s
}

// short prints a number with three digits, or with more where it has more before the point.
func short(x float64) string {
	decimals := 0
	if x > 0 {
		decimals = min(3, max(0, 2-int(math.Floor(math.Log10(x)))))
	}
	return fmt.Sprintf("%.*f", decimals, x)
}
