// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"strings"
)

// Fragment is a part of a configuration, each symbol at most once.
type Fragment struct {
	Name     string // what errors call it; mostly a path
	Settings []Setting
}

// ParseFragment reads a fragment strictly: a line is blank, a comment,
// CONFIG_X=value or "# CONFIG_X is not set", and nothing else. The error names
// the first line that is wrong.
func ParseFragment(name string, data []byte) (*Fragment, error) {
	f := &Fragment{Name: name}
	first := make(map[string]int)
	err := eachLine(name, data, maxFragment, func(pos Pos, line string) error {
		symbol, value, err := splitLine(line)
		if err != nil || symbol == "" {
			return err
		}
		s, err := parseSetting(symbol, value, pos)
		if err != nil {
			return err
		}
		if n, ok := first[symbol]; ok {
			return fmt.Errorf("%s is already set on line %d", symbol, n)
		}
		first[symbol] = pos.Line
		f.Settings = append(f.Settings, s)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// eachLine calls fn for each line, without its end, and puts the position in
// front of fn's error.
func eachLine(name string, data []byte, limit int, fn func(pos Pos, line string) error) error {
	if len(data) > limit {
		return fmt.Errorf("%s: has %d bytes, more than %d", name, len(data), limit)
	}
	pos := Pos{File: name}
	for line := range strings.Lines(string(data)) {
		pos.Line++
		line = strings.TrimSuffix(line, "\n")
		if len(line) > maxLine {
			return fmt.Errorf("%s: line of more than %d bytes", pos, maxLine)
		}
		if err := fn(pos, line); err != nil {
			return fmt.Errorf("%s: %w", pos, err)
		}
	}
	return nil
}

// splitLine returns the symbol and the value that a line sets, or no symbol.
func splitLine(line string) (symbol, value string, err error) {
	if strings.TrimSpace(line) == "" {
		return "", "", nil
	}
	if strings.HasPrefix(line, "#") {
		return splitComment(line)
	}
	symbol, ok := strings.CutPrefix(line, "CONFIG_")
	if ok {
		symbol, value, ok = strings.Cut(symbol, "=")
	}
	if !ok || symbol == "" {
		return "", "", fmt.Errorf("%q is neither CONFIG_X=value nor a comment", line)
	}
	return symbol, value, nil
}

// splitComment finds the one comment that has a meaning. conf also takes what
// begins like it, and passes over what only resembles it; both are refused, for
// a reader could not tell.
func splitComment(line string) (symbol, value string, err error) {
	symbol, ok := strings.CutPrefix(strings.TrimLeft(line, "# \t"), "CONFIG_")
	if !ok {
		return "", "", nil
	}
	symbol, rest, _ := strings.Cut(symbol, " ")
	if !strings.HasPrefix(strings.TrimLeft(rest, " "), "is not set") {
		return "", "", nil
	}
	if symbol == "" || line != "# CONFIG_"+symbol+" is not set" {
		return "", "", fmt.Errorf(`%q is not exactly "# CONFIG_X is not set"`, line)
	}
	return symbol, "n", nil
}
