// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"strings"
)

// maxBlamed is how many terms, symbols or places one reason names.
const maxBlamed = 4

// blame returns the terms that keep an expression below a level, each with its
// value, such as "PCI (=n)"; none if nothing does, or if it cannot be told.
// Several terms that would each do are one, joined with ||.
func (v env) blame(e *expr, want level) []string {
	return v.blameTerm(e, want, false)
}

// blameTerm blames e, or its negation.
func (v env) blameTerm(e *expr, want level, negated bool) []string {
	if !v.fails(e, want, negated) {
		return nil
	}
	switch e.op {
	case "!":
		return v.blameTerm(e.x, want, !negated)
	case "&&", "||":
		x, y := v.blameTerm(e.x, want, negated), v.blameTerm(e.y, want, negated)
		if (e.op == "&&") != negated {
			return append(x, y...)
		}
		text := allOf(x)
		switch {
		case strings.Count(text, " || ") < maxBlamed-1:
			text += " || " + allOf(y)
		case !strings.HasSuffix(text, "..."):
			text += " || ..."
		}
		return []string{text}
	}
	return []string{v.describe(e, negated)}
}

func (v env) fails(e *expr, want level, negated bool) bool {
	b := v.eval(e)
	if negated {
		return yes-b.low < want
	}
	return b.high < want
}

// describe returns a term or a comparison, and the value that it has now, as in
// "PCI (=n)" and "!X86 (X86=y)".
func (v env) describe(e *expr, negated bool) string {
	text, term, name := e.String(), e.term, ""
	if e.op != "" {
		term = e.x.term
	}
	switch {
	case negated && e.op != "":
		text = "!(" + text + ")"
	case negated:
		text = "!" + text
	}
	if text != term.String() {
		name = term.String()
	}
	value := v.text(term)
	switch s := v.symbol(term); {
	case s == nil && (e.op != "" || levelOf(value) != no || value == "n"):
		return text // a constant, or two
	case s == nil:
		value = "n" // a symbol of another architecture, mostly
	case s.typ == "string":
		value = Quote(value)
	}
	return fmt.Sprintf("%s (%s=%s)", text, name, value)
}

func allOf(terms []string) string {
	if len(terms) == 1 {
		return terms[0]
	}
	return "(" + strings.Join(terms, " && ") + ")"
}

// list joins distinct items with commas, the first few of them.
func list(items []string) string {
	seen := make(map[string]bool)
	var kept []string
	for _, item := range items {
		if !seen[item] {
			seen[item] = true
			kept = append(kept, item)
		}
	}
	if more := len(kept) - maxBlamed; more > 0 {
		kept = append(kept[:maxBlamed], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(kept, ", ")
}
