// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"slices"
)

// option reads one of the lines that follow config, choice, menu or comment.
func (p *treeParser) option(keyword string, args []token, pos Pos) error {
	e := p.entry
	args, cond, err := splitIf(args)
	if err != nil {
		return err
	}
	switch keyword {
	case "depends":
		if len(args) == 0 || !args[0].is("on") {
			return fmt.Errorf("depends without on")
		}
		return addExpr(&e.depends, args[1:])
	case "visible":
		e.visible = and(e.visible, cond)
	case "bool", "boolean", "tristate", "int", "hex", "string":
		e.setType(keyword)
		if len(args) > 0 {
			e.setPrompt(cond)
		}
	case "prompt":
		e.setPrompt(cond)
	case "def_bool", "def_tristate":
		e.setType(keyword[len("def_"):])
	case "select":
		if len(args) != 1 || e.sym == nil {
			return fmt.Errorf("select needs a symbol")
		}
		target := p.tree.refer(args[0].text)
		target.selected = append(target.selected, selection{e, pos, cond})
	case "range":
		if len(args) != 2 {
			return fmt.Errorf("range needs two values")
		}
		e.ranges = append(e.ranges, valueRange{args[0], args[1], cond})
	case "default", "imply", "modules", "optional", "option", "transitional":
		// Nothing that the checks need yet.
	default:
		return fmt.Errorf("unknown statement %q", keyword)
	}
	return nil
}

// splitIf cuts a condition off the end.
func splitIf(args []token) (head []token, cond *expr, err error) {
	n := slices.IndexFunc(args, func(t token) bool { return t.is("if") })
	if n < 0 {
		return args, nil, nil
	}
	cond, err = parseExpr(args[n+1:])
	return args[:n], cond, err
}

func (e *entry) setType(typ string) {
	if e.sym != nil && e.sym.typ == "" {
		e.sym.typ = typ
		if typ == "boolean" {
			e.sym.typ = "bool"
		}
	}
}

func (e *entry) setPrompt(cond *expr) {
	e.prompt = true
	if e.kind == "choice" {
		// Members depend on the choice, which is n if its prompt is not visible.
		e.depends = and(e.depends, cond)
	} else {
		e.visible = and(e.visible, cond)
	}
}
