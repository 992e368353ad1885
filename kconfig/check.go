// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"strings"
)

// Problem is a setting that the resolved configuration does not have.
type Problem struct {
	Setting        // what was asked for, and where
	Got     string // what came out; "" if the tree does not define the symbol
	Reason  string // why, as far as the Kconfig files tell
}

func (p Problem) Error() string {
	what := fmt.Sprintf("%s: %s", p.Pos, p.Setting)
	switch p.Got {
	case "":
	case "n":
		what += " was dropped"
	default:
		what += " was changed to " + p.Got
	}
	return what + ": " + p.Reason
}

// CheckError is all that Check found, sorted by symbol.
type CheckError struct {
	Problems []Problem
}

// Error returns one line for each problem.
func (e *CheckError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Check compares what was asked for with what came out. It returns a
// *CheckError if a symbol has another value, or is not known to the tree, even
// if it was to be off: whoever turns off what does not exist relies on a name
// that means nothing.
func Check(r *Request, c *Config, t *Tree) error {
	x := explainer{env{c, t}, r}
	var problems []Problem
	for _, s := range r.Settings {
		sym := t.lookup(s.Symbol)
		if sym == nil {
			problems = append(problems, Problem{s, "", x.unknown(s.Symbol)})
			continue
		}
		if got := c.Value(s.Symbol); !sym.same(s.Value, got) {
			problems = append(problems, Problem{s, got, x.explain(sym, s.Value, got)})
		}
	}
	if len(problems) > 0 {
		return &CheckError{problems}
	}
	return nil
}

// same reports whether two values of a symbol mean the same. A hexadecimal
// symbol may be set without 0x; conf writes it with one.
func (s *symbol) same(a, b string) bool {
	if s.typ == "hex" && a != "n" && !isHex(a) {
		a = "0x" + a
	}
	return sameValue(a, b)
}
