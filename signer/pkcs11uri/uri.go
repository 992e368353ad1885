// SPDX-License-Identifier: Apache-2.0

// Package pkcs11uri reads PKCS#11 URIs (RFC 7512).
//
// In: the URI, with or without its scheme. Out: what it says of a token, a
// private key in it and the module that talks to it. Refused: attributes that
// mean nothing here, and those that occur twice: a key must not be found by less
// than what was asked for. PINs too, as others see command lines.
package pkcs11uri

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrPIN says that a URI holds a PIN.
var ErrPIN = errors.New("a PIN is no part of a key reference: pin-value is not taken")

// URI is what a URI says. What is empty was not said.
type URI struct {
	Token, Serial, Model, Manufacturer string // of the token
	Slot                               *uint  // that the token is in
	Object                             string // label of the key
	ID                                 []byte // of the key
	Module                             string // path of the library
	ModuleName                         string // without "lib" and ".so"
	PINSource                          string // path of the file with the PIN
}

// Parse reads a URI. An error shows no attribute's value.
func Parse(text string) (*URI, error) {
	if strings.Contains(strings.ToLower(text), "pin-value") {
		return nil, ErrPIN
	}
	text = strings.TrimPrefix(strings.TrimPrefix(text, "pkcs11:"), "//")
	path, query, _ := strings.Cut(text, "?")
	u, seen := &URI{}, map[string]bool{}
	for _, part := range []struct {
		text, separator string
		set             func(u *URI, name, value string) error
	}{{path, ";", (*URI).setPath}, {query, "&", (*URI).setQuery}} {
		for attribute := range strings.SplitSeq(part.text, part.separator) {
			if attribute == "" {
				continue
			}
			name, value, ok := strings.Cut(attribute, "=")
			value, err := url.PathUnescape(value)
			switch {
			case !ok || err != nil || value == "":
				return nil, fmt.Errorf("attribute %q: no value, or one that is not percent-encoded", name)
			case seen[name]:
				return nil, fmt.Errorf("attribute %q occurs twice", name)
			}
			seen[name] = true
			if err := part.set(u, name, value); err != nil {
				return nil, fmt.Errorf("attribute %q: %w", name, err)
			}
		}
	}
	if u.Object == "" && u.ID == nil {
		return nil, errors.New("names no key: needs object or id")
	}
	return u, nil
}

var errUnknown = errors.New("unknown there")

func (u *URI) setPath(name, value string) error {
	switch name {
	case "token":
		u.Token = value
	case "serial":
		u.Serial = value
	case "model":
		u.Model = value
	case "manufacturer":
		u.Manufacturer = value
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return errors.New("not a number")
		}
		slot := uint(n)
		u.Slot = &slot
	case "object":
		u.Object = value
	case "id":
		u.ID = []byte(value)
	case "type":
		if value != "private" {
			return errors.New("only private keys sign")
		}
	default:
		return errUnknown
	}
	return nil
}

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "module-path":
		u.Module = value
	case "module-name":
		if strings.Contains(value, "/") {
			return errors.New("a path: module-path takes those")
		}
		u.ModuleName = value
	case "pin-source":
		u.PINSource = strings.TrimPrefix(strings.TrimPrefix(value, "file:"), "//")
		if !filepath.IsAbs(u.PINSource) {
			return errors.New("not file: and an absolute path")
		}
	default:
		return errUnknown
	}
	return nil
}
