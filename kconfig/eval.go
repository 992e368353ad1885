// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"strconv"
	"strings"
)

// level is a tristate value: n, m and y in this order.
type level int

const (
	no level = iota
	mod
	yes
)

func levelOf(value string) level {
	switch value {
	case "y":
		return yes
	case "m":
		return mod
	}
	return no
}

// bounds is what is known of a value that may hang on an unknown macro.
type bounds struct{ low, high level }

// env is what expressions are evaluated in.
type env struct {
	config *Config
	tree   *Tree
}

func (v env) eval(e *expr) bounds {
	if e == nil {
		return bounds{yes, yes}
	}
	switch e.op {
	case "":
		return v.level(e.term)
	case "!":
		x := v.eval(e.x)
		return bounds{yes - x.high, yes - x.low}
	case "&&":
		x, y := v.eval(e.x), v.eval(e.y)
		return bounds{min(x.low, y.low), min(x.high, y.high)}
	case "||":
		x, y := v.eval(e.x), v.eval(e.y)
		return bounds{max(x.low, y.low), max(x.high, y.high)}
	}
	if e.x.term.unknown || e.y.term.unknown {
		return bounds{no, yes}
	}
	if compare(e.op, v.text(e.x.term), v.text(e.y.term)) {
		return bounds{yes, yes}
	}
	return bounds{no, no}
}

func (v env) level(t token) bounds {
	if t.unknown {
		return bounds{no, yes}
	}
	l := no
	switch s := v.symbol(t); {
	case s != nil && s.tristate():
		l = levelOf(v.config.Value(s.name))
	case s == nil:
		// The constant m is the highest level that a module can have.
		if l = levelOf(t.text); l == mod {
			l = min(l, levelOf(v.config.Value("MODULES")))
		}
	}
	return bounds{l, l}
}

// symbol returns the symbol that a term stands for, or nil for a constant. What
// the tree does not define is a constant too, of its own name.
func (v env) symbol(t token) *symbol {
	if t.kind == quoted {
		return nil
	}
	return v.tree.lookup(t.text)
}

// text returns a term's value as comparisons take it.
func (v env) text(t token) string {
	s := v.symbol(t)
	if s == nil {
		return t.text
	}
	value, ok := v.config.values[s.name]
	switch {
	case s.tristate():
		return v.config.Value(s.name)
	case !ok || value == "n":
		return ""
	case strings.HasPrefix(value, `"`):
		if text, err := unquote(value); err == nil {
			return text
		}
	}
	return value
}

// compare compares as numbers if both sides are some, or else as strings.
func compare(op, x, y string) bool {
	c := strings.Compare(x, y)
	if a, ok := number(x); ok {
		if b, ok := number(y); ok {
			c = 0
			if a < b {
				c = -1
			} else if a > b {
				c = 1
			}
		}
	}
	switch op {
	case "=":
		return c == 0
	case "!=":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}

func number(s string) (int64, bool) {
	if s == "n" || s == "m" || s == "y" {
		return int64(levelOf(s)), true
	}
	n, err := strconv.ParseInt(s, 0, 64)
	return n, err == nil
}
