// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Config is a resolved configuration.
type Config struct {
	values map[string]string
}

// ParseConfig reads a .config as the kernel's own tools write it. Unlike
// ParseFragment it takes any value and any comment, and the last of several
// values of one symbol, as conf does.
func ParseConfig(name string, data []byte) (*Config, error) {
	c := &Config{values: make(map[string]string)}
	err := eachLine(name, data, maxConfig, func(_ Pos, line string) error {
		symbol, value, err := splitLine(strings.TrimSuffix(line, "\r"))
		if symbol == "" {
			if strings.HasPrefix(line, "#") {
				return nil
			}
			return err
		}
		if !symbolSyntax.MatchString(symbol) {
			return fmt.Errorf("bad symbol name %q", symbol)
		}
		c.values[symbol] = value
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Value returns a symbol's value in the form that Setting documents: "n" if
// the symbol is absent or not set.
func (c *Config) Value(symbol string) string {
	if v, ok := c.values[symbol]; ok {
		return v
	}
	return "n"
}

// Symbols returns all symbols that the file names, sorted.
func (c *Config) Symbols() []string {
	return slices.Sorted(maps.Keys(c.values))
}

// Enabled returns how many symbols are y or m.
func (c *Config) Enabled() int {
	n := 0
	for _, v := range c.values {
		if v == "y" || v == "m" {
			n++
		}
	}
	return n
}
