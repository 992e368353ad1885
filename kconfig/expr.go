// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"slices"
)

// expr is an expression; nil is one that always holds. With op empty it is a
// term. Both sides of a comparison are terms.
type expr struct {
	op   string // "", "!", "&&", "||", "=", "!=", "<", "<=", ">" or ">="
	x, y *expr
	term token
}

var comparisons = []string{"=", "!=", "<", "<=", ">", ">="}

// and returns an expression that holds if both do.
func and(x, y *expr) *expr {
	switch {
	case x == nil:
		return y
	case y == nil:
		return x
	}
	return &expr{op: "&&", x: x, y: y}
}

// parseExpr reads tokens, all of them, as an expression. From weak to strong:
// || && ! and comparisons, as in scripts/kconfig/parser.y.
func parseExpr(tokens []token) (*expr, error) {
	p := exprParser{tokens: tokens}
	e, err := p.or()
	if err == nil && len(p.tokens) > 0 {
		err = fmt.Errorf("unexpected %s", p.tokens[0])
	}
	return e, err
}

type exprParser struct {
	tokens []token
	depth  int
}

// take removes the next token if it is one of these operators.
func (p *exprParser) take(ops ...string) (string, bool) {
	if len(p.tokens) == 0 || p.tokens[0].kind != operator || !slices.Contains(ops, p.tokens[0].text) {
		return "", false
	}
	op := p.tokens[0].text
	p.tokens = p.tokens[1:]
	return op, true
}

func (p *exprParser) or() (*expr, error)  { return p.chain("||", p.and) }
func (p *exprParser) and() (*expr, error) { return p.chain("&&", p.not) }

func (p *exprParser) chain(op string, next func() (*expr, error)) (*expr, error) {
	e, err := next()
	for err == nil {
		if _, ok := p.take(op); !ok {
			break
		}
		var y *expr
		y, err = next()
		e = &expr{op: op, x: e, y: y}
	}
	return e, err
}

func (p *exprParser) not() (*expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("expression of more than %d levels", maxDepth)
	}
	defer func() { p.depth-- }()
	if _, ok := p.take("!"); ok {
		x, err := p.not()
		return &expr{op: "!", x: x}, err
	}
	if _, ok := p.take("("); ok {
		e, err := p.or()
		if err != nil {
			return nil, err
		}
		if _, ok := p.take(")"); !ok {
			return nil, fmt.Errorf("missing )")
		}
		return e, nil
	}
	return p.comparison()
}

func (p *exprParser) comparison() (*expr, error) {
	x, err := p.operand()
	if err != nil {
		return nil, err
	}
	op, ok := p.take(comparisons...)
	if !ok {
		return x, nil
	}
	y, err := p.operand()
	return &expr{op: op, x: x, y: y}, err
}

func (p *exprParser) operand() (*expr, error) {
	if len(p.tokens) == 0 {
		return nil, fmt.Errorf("expression ends too early")
	}
	t := p.tokens[0]
	if t.kind == operator {
		return nil, fmt.Errorf("unexpected %s", t)
	}
	p.tokens = p.tokens[1:]
	return &expr{term: t}, nil
}

func (e *expr) String() string {
	switch e.op {
	case "":
		return e.term.String()
	case "!":
		return "!" + e.x.String()
	case "&&", "||":
		return "(" + e.x.String() + " " + e.op + " " + e.y.String() + ")"
	}
	return e.x.String() + " " + e.op + " " + e.y.String()
}
