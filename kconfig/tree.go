// SPDX-License-Identifier: Apache-2.0

package kconfig

// Tree is what the Kconfig files of a source tree say of each symbol. It knows
// of one architecture, and of no macro but SRCARCH.
type Tree struct {
	symbols map[string]*symbol
}

// lookup returns a symbol that the tree defines, or nil.
func (t *Tree) lookup(name string) *symbol {
	if s := t.symbols[name]; s != nil && len(s.entries) > 0 {
		return s
	}
	return nil
}

// refer returns a symbol, defined or not yet.
func (t *Tree) refer(name string) *symbol {
	s := t.symbols[name]
	if s == nil {
		s = &symbol{name: name}
		t.symbols[name] = s
	}
	return s
}

type symbol struct {
	name     string
	typ      string // "bool", "tristate", "int", "hex", "string"; "" if no entry says
	entries  []*entry
	selected []selection
}

// tristate reports whether the values are among y, m and n.
func (s *symbol) tristate() bool {
	return s.typ == "bool" || s.typ == "tristate"
}

// entry is a config, choice, menu, if or comment. A symbol has one for each
// place that defines it.
type entry struct {
	kind    string
	pos     Pos
	sym     *symbol // of a config
	depends *expr   // its own and those of all entries around it
	prompt  bool
	visible *expr // on what the prompt depends besides
	ranges  []valueRange
	choice  *entry    // of which it is a member
	members []*symbol // of a choice
}

// selection is a select statement, kept with the symbol that it selects.
type selection struct {
	by   *entry
	pos  Pos
	cond *expr
}

type valueRange struct {
	low, high token
	cond      *expr
}
