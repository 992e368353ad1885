// SPDX-License-Identifier: Apache-2.0

// Package judge is what a test and its guest tell each other: the guest does the
// steps of a list, in order, and prints what its kernel said to each.
package judge

import (
	"bytes"
	_ "embed"
	"slices"
)

// The authority that the kernels of tests trust, in PEM.
var (
	//go:embed ca.crt
	Certificate []byte
	//go:embed ca.key
	Key []byte
)

// Where things lie in the guest's initramfs.
const (
	BasePath      = "/base"      // the image that the steps change
	InitramfsPath = "/initramfs" // the one that it is sealed to
	StepsPath     = "/steps"     // []Step, JSON
)

// Said begins a line of the guest: then come a name, a space, and "0" or the
// name of an errno. Names that are not of a step: "lockdown".
const Said = "JUDGE "

// What a step does.
const (
	Load   = "load"   // kexec_file_load(2) of the base with the edits
	Old    = "old"    // kexec_load(2)
	Insert = "insert" // init_module(2) of Data; a module that went in is removed
	Revoke = "revoke" // add_key(2) of Key, which Data signs, to the keyring .blacklist
	Reboot = "reboot" // as Load, then into it
)

// Step is one thing that the guest does.
type Step struct {
	Name, Do string
	Edits    []Edit `json:",omitempty"`
	Size     int    `json:",omitempty"` // of the image after the edits
	Key      string `json:",omitempty"`
	Data     []byte `json:",omitempty"`
}

// Edit is a range of an image that has other bytes.
type Edit struct {
	At   int
	Data []byte
}

// Diff lists how to make an image of the base.
func Diff(base, image []byte) []Edit {
	const piece = 512
	var edits []Edit
	for at := 0; at < len(image); at += piece {
		now := image[at:min(at+piece, len(image))]
		if at+len(now) > len(base) || !bytes.Equal(base[at:at+len(now)], now) {
			edits = append(edits, Edit{at, now})
		}
	}
	return edits
}

// Apply makes the image of the base again.
func Apply(base []byte, edits []Edit, size int) []byte {
	out := slices.Grow(slices.Clone(base), max(0, size-len(base)))[:size]
	for _, e := range edits {
		copy(out[e.At:], e.Data)
	}
	return out
}
