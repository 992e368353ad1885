// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Pos is a line of a file. Line is 0 for what has no lines, such as settings
// that a program made.
type Pos struct {
	File string
	Line int
}

// String returns "file:line".
func (p Pos) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Setting is a symbol, its value, and where that was written.
//
// Value is in the syntax of a .config: y, m or n, a decimal number, a
// hexadecimal number with 0x, or a string as Quote returns it. What is not set
// has the value n.
type Setting struct {
	Symbol string
	Value  string
	Pos    Pos
}

func (s Setting) String() string {
	return s.Symbol + "=" + s.Value
}

var (
	symbolSyntax = regexp.MustCompile(`^[A-Za-z0-9_]+$`)
	// As sym_string_valid (scripts/kconfig/symbol.c) has it, but with a 0x in
	// front of each hexadecimal number: 10 would be sixteen for some symbols.
	numberSyntax = regexp.MustCompile(`^(-?(0|[1-9][0-9]*)|0[xX][0-9A-Fa-f]+)$`)
)

// Quote returns a string in the syntax of a .config. Only " and \ are escaped:
// there is no syntax for line ends, which Merge therefore refuses.
func Quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// unquote is the inverse of Quote. A backslash makes a character of what
// follows it, as conf has it.
func unquote(value string) (string, error) {
	var b strings.Builder
	for i := 1; i < len(value); i++ {
		switch value[i] {
		case '"':
			if i != len(value)-1 {
				return "", fmt.Errorf("text after the end of string %s", value[:i+1])
			}
			return b.String(), nil
		case '\\':
			if i++; i == len(value) {
				return "", fmt.Errorf("unterminated string %s", value)
			}
		}
		b.WriteByte(value[i])
	}
	return "", fmt.Errorf("unterminated string %s", value)
}

// parseSetting checks a symbol and its value, and puts the value into the one
// form that Setting documents.
func parseSetting(symbol, value string, pos Pos) (Setting, error) {
	if !symbolSyntax.MatchString(symbol) {
		return Setting{}, fmt.Errorf("bad symbol name %q", symbol)
	}
	value, err := parseValue(value)
	if err != nil {
		return Setting{}, fmt.Errorf("%s: %w", symbol, err)
	}
	return Setting{symbol, value, pos}, nil
}

func parseValue(value string) (string, error) {
	if value == "" {
		return "", fmt.Errorf(`no value (an empty string is "")`)
	}
	for _, r := range value {
		if r < ' ' && r != '\t' || r == 0x7f || r == utf8.RuneError {
			return "", fmt.Errorf("value %q has control characters or is not UTF-8", value)
		}
	}
	if value[0] == '"' {
		s, err := unquote(value)
		if err != nil {
			return "", err
		}
		// The kernel's makefiles include all values unquoted, and expand these
		// where they use one: $(shell ...) would run a command.
		if strings.Contains(s, "$(") || strings.Contains(s, "${") {
			return "", fmt.Errorf("value %s has a $( or ${, which make would expand", value)
		}
		return Quote(s), nil
	}
	switch value {
	case "y", "m", "n":
		return value, nil
	}
	if !numberSyntax.MatchString(value) {
		return "", fmt.Errorf("value %q is not y, m, n, a number, a 0x number or a quoted string", value)
	}
	return value, nil
}

// sameValue reports whether two values mean the same. Hexadecimal digits have
// no case, and conf keeps them as they were written.
func sameValue(a, b string) bool {
	return a == b || isHex(a) && isHex(b) && strings.EqualFold(a, b)
}

func isHex(value string) bool {
	return len(value) > 2 && value[0] == '0' && (value[1] == 'x' || value[1] == 'X')
}
