// SPDX-License-Identifier: Apache-2.0

// Package fidelity describes how an initramfs differs from the image that it was
// made of.
//
// In and out: a Report, and its JSON form, which is an interface. Refused when
// read: another version, unknown fields, more than the limit. What Linux file
// capabilities mean is read here too, because reports show them.
package fidelity

import (
	"errors"
	"fmt"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Version is the version of reports that this package writes and reads.
const Version = 2

// Report says how an initramfs differs from its image. Paths have no leading
// slash; "." is the root. Lists are in the order of the paths.
type Report struct {
	Version int       `json:"version"`
	Entries int       `json:"entries"` // names in the initramfs
	Bytes   int64     `json:"bytes"`   // contents of files in the initramfs, a file with several names once
	Added   []string  `json:"added"`   // paths that are not the image's
	Dropped []Dropped `json:"dropped"` // what was left out
	Changed []Change  `json:"changed"` // what is other than in the image
	Xattrs  Xattrs    `json:"xattrs"`  // what the table of extended attributes carries for PID 1
}

// Dropped is what one recipe left out, or a file that one waiver left out, with
// all below it.
type Dropped struct {
	By      string `json:"by"`             // "recipe NAME" or "waiver PATTERN"
	Path    string `json:"path,omitempty"` // of a waiver
	Why     string `json:"why,omitempty"`  // of a waiver: what the initramfs cannot hold
	Entries int    `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

// Change is an attribute of a file that a waiver let go, or what PID 1 needs
// otherwise. A file with several names is there under its first.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // for example "xattr NAME dropped" or "time clamped to TIME"
	By   string `json:"by"`   // "waiver PATTERN", or "tenon"
	Why  string `json:"why"`  // for example what the initramfs cannot hold
}

// Xattrs sums up the table of extended attributes.
type Xattrs struct {
	Count        int          `json:"count"` // of attributes
	Capabilities []Capability `json:"capabilities"`
}

// Capability is a file with capabilities.
type Capability struct {
	Path         string `json:"path"`
	Capabilities string `json:"capabilities"` // as FormatCapability writes them
}

// New returns a report of no difference.
func New() *Report {
	return &Report{Version: Version, Added: []string{}, Dropped: []Dropped{}, Changed: []Change{}, Xattrs: Xattrs{Capabilities: []Capability{}}}
}

// Read reads a bundle's report. Errors about what it says wrap bundle.ErrInvalid,
// or strictjson.ErrVersion when it is of another version.
func Read(b *bundle.Bundle) (*Report, error) {
	data, err := b.ReadLayer(bundle.FidelityType)
	if err != nil {
		return nil, err
	}
	r, err := Decode(data)
	if err != nil && !errors.Is(err, strictjson.ErrVersion) {
		err = fmt.Errorf("%w: %w", bundle.ErrInvalid, err)
	}
	return r, err
}

// Decode reads a report strictly. Another version is an error that wraps
// strictjson.ErrVersion.
func Decode(data []byte) (*Report, error) {
	r := New()
	err := strictjson.CheckValues(data, limit.FidelityValues)
	if err == nil {
		err = strictjson.DecodeVersion(data, limit.Fidelity, Version, r)
	}
	if err != nil {
		return nil, fmt.Errorf("fidelity report: %w", err)
	}
	return r, nil
}
