// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// ErrLimit says that a report is larger, or has more entries, than anyone reads; test with errors.Is.
var ErrLimit = errors.New("too many differences between image and initramfs")

// Encode returns the JSON form. A report that Decode would refuse for its size is an error that
// wraps ErrLimit.
func (r *Report) Encode() ([]byte, error) {
	entries := len(r.Added) + len(r.Dropped) + len(r.Changed) + len(r.Xattrs.Capabilities)
	if entries > limit.ReportEntries {
		return nil, fmt.Errorf("%w: %d, a report has at most %d", ErrLimit, entries, limit.ReportEntries)
	}
	data, err := json.Marshal(r)
	if err == nil && len(data) > limit.Report {
		err = fmt.Errorf("%w: a report of %d bytes, at most %d are read", ErrLimit, len(data), limit.Report)
	}
	return data, err
}

// Read reads a bundle's report. Errors about what it says wrap bundle.ErrInvalid,
// or strictjson.ErrVersion when it is of another version.
func Read(b *bundle.Bundle) (*Report, error) {
	layer, err := b.OpenLayer(bundle.FidelityType)
	if err != nil {
		return nil, err
	}
	defer layer.Close()
	r, err := Decode(layer)
	if err == nil || errors.Is(err, strictjson.ErrVersion) {
		return r, err
	}
	if _, damaged := io.Copy(io.Discard, layer); damaged != nil {
		return nil, damaged // what it says is not what was written
	}
	return nil, fmt.Errorf("%w: %w", bundle.ErrInvalid, err)
}

// Decode reads a report strictly and as a stream: no more of it is held than its
// entries. Its first field is the version. Another version is an error that wraps
// strictjson.ErrVersion.
func Decode(in io.Reader) (*Report, error) {
	d := &decoder{json: json.NewDecoder(&modest{in, limit.Report}), left: limit.ReportEntries}
	r := New()
	if err := d.report(r); err != nil {
		return nil, fmt.Errorf("fidelity report: %w", err)
	}
	return r, nil
}

// modest fails where there are more bytes than the limit.
type modest struct {
	r    io.Reader
	left int
}

func (m *modest) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	if m.left -= n; m.left < 0 {
		return 0, fmt.Errorf("larger than %d bytes", limit.Report)
	}
	return n, err
}

type decoder struct {
	json *json.Decoder
	left int // entries of all lists
}

func (d *decoder) report(r *Report) error {
	first := true
	err := d.object(func(field string) error {
		if first && field != "version" {
			return errors.New("no version field at its beginning")
		}
		first = false
		switch field {
		case "version":
			if err := d.value(&r.Version); err != nil {
				return err
			}
			if r.Version != Version {
				return fmt.Errorf("%w %d: this program reads version %d", strictjson.ErrVersion, r.Version, Version)
			}
			return nil
		case "entries":
			return d.value(&r.Entries)
		case "bytes":
			return d.value(&r.Bytes)
		case "added":
			return list(d, &r.Added)
		case "dropped":
			return list(d, &r.Dropped)
		case "changed":
			return list(d, &r.Changed)
		case "xattrs":
			return d.object(func(field string) error {
				switch field {
				case "count":
					return d.value(&r.Xattrs.Count)
				case "capabilities":
					return list(d, &r.Xattrs.Capabilities)
				}
				return fmt.Errorf("unknown field %q", field)
			})
		}
		return fmt.Errorf("unknown field %q", field)
	})
	if err != nil {
		return err
	}
	if first {
		return errors.New("no version field")
	}
	switch _, err := d.json.Token(); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("data after the end of the JSON value")
	default:
		return err
	}
}

// object calls fn for each field, which has to read the value.
func (d *decoder) object(fn func(field string) error) error {
	if err := d.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for d.json.More() {
		token, err := d.json.Token()
		if err != nil {
			return err
		}
		field := token.(string)
		if seen[field] {
			return fmt.Errorf("field %q occurs twice", field)
		}
		seen[field] = true
		if err := fn(field); err != nil {
			return err
		}
	}
	return d.delim('}')
}

func (d *decoder) delim(want json.Delim) error {
	token, err := d.json.Token()
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case token == nil:
		return fmt.Errorf("null where %v is due", want)
	case token != want:
		return fmt.Errorf("%v where %v is due", token, want)
	}
	return nil
}

// value reads a value strictly.
func (d *decoder) value(into any) error {
	var raw json.RawMessage
	if err := d.json.Decode(&raw); err != nil {
		return err
	}
	return strictjson.Decode(raw, limit.Report, into)
}

// list reads the elements of a list, one by one. null is an empty one.
func list[T any](d *decoder, into *[]T) error {
	switch token, err := d.json.Token(); {
	case err != nil:
		return err
	case token == nil:
		return nil
	case token != json.Delim('['):
		return fmt.Errorf("%v where a list is due", token)
	}
	for d.json.More() {
		if d.left--; d.left < 0 {
			return fmt.Errorf("more than %d entries", limit.ReportEntries)
		}
		var element T
		if err := d.value(&element); err != nil {
			return err
		}
		*into = append(*into, element)
	}
	return d.delim(']')
}
