// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"strings"
)

type tokenKind int

const (
	word tokenKind = iota
	quoted
	operator
)

type token struct {
	kind    tokenKind
	text    string
	unknown bool // made by a macro that is not expanded here
}

func (t token) String() string {
	if t.kind == quoted {
		return Quote(t.text)
	}
	return t.text
}

func (t token) is(keyword string) bool {
	return t.kind == word && !t.unknown && t.text == keyword
}

// lexer reads a Kconfig file statement by statement, as
// scripts/kconfig/lexer.l does.
type lexer struct {
	src    string
	off    int
	line   int
	vars   map[string]string
	tokens []token // of the last statement
}

// operators, longest first. The last two only occur in assignments to macros.
var operators = []string{"||", "&&", "!=", "<=", ">=", ":=", "+=", "=", "<", ">", "!", "(", ")"}

// statement returns the tokens of the next statement and its first line, or no
// tokens at the end. They are valid until the next call.
func (l *lexer) statement() (tokens []token, line int, err error) {
	l.tokens = l.tokens[:0]
	for l.off < len(l.src) {
		c := l.src[l.off]
		switch {
		case c == '\n':
			l.off++
			l.line++
			if len(l.tokens) > 0 {
				return l.tokens, line, nil
			}
			continue
		case c == '#':
			l.skipLine()
			continue
		case c == '\\' && strings.HasPrefix(l.src[l.off:], "\\\n"):
			l.off += 2
			l.line++
			continue
		case c == ' ' || c == '\t':
			l.off++
			continue
		}
		if len(l.tokens) == 0 {
			line = l.line
		}
		if err := l.token(c); err != nil {
			return nil, l.line, err
		}
		if len(l.tokens) > maxTokens {
			return nil, line, fmt.Errorf("statement of more than %d words", maxTokens)
		}
	}
	return l.tokens, line, nil
}

// skipLine goes to the line's end. It does not go over it.
func (l *lexer) skipLine() {
	if n := strings.IndexByte(l.src[l.off:], '\n'); n >= 0 {
		l.off += n
	} else {
		l.off = len(l.src)
	}
}

func (l *lexer) token(c byte) error {
	switch {
	case c == '"' || c == '\'':
		return l.quoted(c)
	case c == '$' || isWordByte(c):
		return l.word()
	}
	for _, op := range operators {
		if strings.HasPrefix(l.src[l.off:], op) {
			l.off += len(op)
			l.tokens = append(l.tokens, token{kind: operator, text: op})
			// What is assigned to a macro has a syntax of its own.
			if len(l.tokens) == 2 && l.assignment() {
				l.skipLine()
			}
			return nil
		}
	}
	l.off++ // conf warns and goes on
	return nil
}

// assignment reports whether the statement begins like NAME = or NAME :=.
func (l *lexer) assignment() bool {
	return len(l.tokens) >= 2 && l.tokens[0].kind == word && l.tokens[1].kind == operator &&
		strings.HasSuffix(l.tokens[1].text, "=") && !strings.ContainsAny(l.tokens[1].text, "!<>")
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}

func (l *lexer) word() error {
	t := token{kind: word}
	start := l.off
	for l.off < len(l.src) {
		c := l.src[l.off]
		if c == '$' {
			t.text += l.src[start:l.off]
			if err := l.macro(&t); err != nil {
				return err
			}
			start = l.off
			continue
		}
		if !isWordByte(c) {
			break
		}
		l.off++
	}
	t.text += l.src[start:l.off]
	l.tokens = append(l.tokens, t)
	return nil
}

func (l *lexer) quoted(quote byte) error {
	t := token{kind: quoted}
	var b strings.Builder
	for l.off++; l.off < len(l.src); {
		c := l.src[l.off]
		switch c {
		case '\n':
			return fmt.Errorf("unterminated string")
		case '$':
			m := token{}
			if err := l.macro(&m); err != nil {
				return err
			}
			b.WriteString(m.text)
			t.unknown = t.unknown || m.unknown
			continue
		case quote:
			l.off++
			t.text = b.String()
			l.tokens = append(l.tokens, t)
			return nil
		case '\\':
			if l.off++; l.off == len(l.src) || l.src[l.off] == '\n' {
				continue
			}
			c = l.src[l.off]
		}
		b.WriteByte(c)
		l.off++
	}
	return fmt.Errorf("unterminated string")
}

// macro appends the value of $(NAME) or $NAME, or the macro itself if the value
// is not known here: most are what some command prints.
func (l *lexer) macro(t *token) error {
	start := l.off
	l.off++
	depth := 0
	for l.off < len(l.src) {
		c := l.src[l.off]
		if c == '\n' || depth == 0 && c != '(' && !isWordByte(c) {
			break
		}
		l.off++
		if c == '(' {
			depth++
		}
		if c == ')' {
			if depth--; depth == 0 {
				break
			}
		}
	}
	if depth > 0 {
		return fmt.Errorf("unterminated macro %s", l.src[start:l.off])
	}
	text := l.src[start:l.off]
	name := strings.TrimSuffix(strings.TrimPrefix(text[1:], "("), ")")
	if value, ok := l.vars[name]; ok {
		t.text += value
	} else {
		t.text += text
		t.unknown = true
	}
	return nil
}
