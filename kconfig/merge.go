// SPDX-License-Identifier: Apache-2.0

package kconfig

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Request is what all fragments together ask for.
type Request struct {
	// Settings are sorted by symbol, each symbol once, at the first place that
	// asks for it. So neither the order of fragments nor that of their lines
	// shows in what Format returns.
	Settings []Setting
}

// ConflictError says that two places ask for different values of a symbol.
type ConflictError struct {
	First, Second Setting
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s: %s wants %s, %s wants %s",
		e.First.Symbol, e.First.Pos, e.First.Value, e.Second.Pos, e.Second.Value)
}

// Merge joins fragments. The error joins all *ConflictErrors, one line each,
// and an error for each setting that a program made and that ParseFragment
// would have refused.
func Merge(fragments ...*Fragment) (*Request, error) {
	var errs []error
	bySymbol := make(map[string]Setting)
	for _, f := range fragments {
		for _, s := range f.Settings {
			s, err := parseSetting(s.Symbol, s.Value, s.Pos)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f.Name, err))
				continue
			}
			first, ok := bySymbol[s.Symbol]
			switch {
			case !ok:
				bySymbol[s.Symbol] = s
			case !sameValue(first.Value, s.Value):
				errs = append(errs, &ConflictError{first, s})
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	r := &Request{Settings: make([]Setting, 0, len(bySymbol))}
	for _, s := range bySymbol {
		r.Settings = append(r.Settings, s)
	}
	slices.SortFunc(r.Settings, func(a, b Setting) int { return strings.Compare(a.Symbol, b.Symbol) })
	return r, nil
}

// Format returns the request in the syntax of a .config, as KCONFIG_ALLCONFIG
// takes it.
func (r *Request) Format() []byte {
	var b bytes.Buffer
	for _, s := range r.Settings {
		if s.Value == "n" {
			fmt.Fprintf(&b, "# CONFIG_%s is not set\n", s.Symbol)
		} else {
			fmt.Fprintf(&b, "CONFIG_%s=%s\n", s.Symbol, s.Value)
		}
	}
	return b.Bytes()
}
