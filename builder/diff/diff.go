// SPDX-License-Identifier: Apache-2.0

// Package diff compares two bundles by what they mean: files, kernel options,
// everything the manifests say, what the initramfs lost of the image, signers,
// sizes.
//
// In: two open bundles. Out: a Report, whose JSON form is an interface. Files
// are those of the initramfs that will run, read out of the kernel image when it
// is sealed, not of a report about it. Refused: bundles whose content is not
// what their manifests say. Nothing here verifies a signature.
package diff

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/tenon-build/tenon/builder/bundle"
)

// Side is one of two bundles.
type Side struct {
	Name    string // what errors and the report call it
	Bundle  *bundle.Bundle
	Signers []Signer // as somebody else found and judged them
}

// Signer is somebody who signed a bundle.
type Signer struct {
	Kind string // of the signature
	Name string
}

// Report lists what differs, each list sorted. In JSON, text that is not UTF-8
// has U+FFFD for the bytes that are not.
type Report struct {
	Same     bool             `json:"same"` // nothing differs, down to the digest
	A        Identity         `json:"a"`
	B        Identity         `json:"b"`
	Files    []FileChange     `json:"files"`
	Options  []OptionChange   `json:"options"`
	Fields   []FieldChange    `json:"fields"`
	Fidelity []FidelityChange `json:"fidelity"`
	Signers  []SignerChange   `json:"signers"`
	Sizes    []SizeChange     `json:"sizes"`
}

// Identity says which bundle a side is.
type Identity struct {
	Name   string `json:"name"`   // Side.Name
	Digest string `json:"digest"` // of the OCI manifest
}

// SignerChange is a signer that only one side has.
type SignerChange struct {
	Kind   string `json:"kind"`
	Signer string `json:"signer"`
	In     string `json:"in"` // a or b
}

// SizeChange is a size that differs, in bytes.
type SizeChange struct {
	What string `json:"what"` // kernel (the image), initramfs (compressed), unpacked (memory that it takes)
	A    int64  `json:"a"`
	B    int64  `json:"b"`
}

// Compare reads both bundles side by side and returns what differs.
func Compare(ctx context.Context, a, b Side) (*Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var contents [2]*content
	var wait sync.WaitGroup
	for i, side := range []Side{a, b} {
		wait.Go(func() {
			c, err := read(ctx, side)
			if err != nil {
				cancel(err) // the other one stops with the same error
			}
			contents[i] = c
		})
	}
	wait.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	ca, cb := contents[0], contents[1]
	r := &Report{
		A: Identity{a.Name, a.Bundle.Digest.String()}, B: Identity{b.Name, b.Bundle.Digest.String()},
		Files: compareFiles(ca.files, cb.files), Options: compareOptions(ca, cb),
		Fields: compareFields(ca.fields, cb.fields), Fidelity: compareFidelity(ca.fidelity, cb.fidelity),
		Signers: compareSigners(a.Signers, b.Signers), Sizes: compareSizes(a.Bundle, b.Bundle),
	}
	r.Same = r.A.Digest == r.B.Digest && len(r.Signers) == 0
	return r, nil
}

func compareSizes(a, b *bundle.Bundle) []SizeChange {
	all := []SizeChange{
		{"kernel", a.Size(bundle.KernelType), b.Size(bundle.KernelType)},
		{"initramfs", a.Manifest.Initramfs.Size, b.Manifest.Initramfs.Size},
		{"unpacked", a.Manifest.Initramfs.Unpacked, b.Manifest.Initramfs.Unpacked},
	}
	return slices.DeleteFunc(all, func(s SizeChange) bool { return s.A == s.B })
}

func compareSigners(a, b []Signer) []SignerChange {
	out := []SignerChange{}
	onlyIn(a, b, func(s Signer, in string) { out = append(out, SignerChange{s.Kind, s.Name, in}) })
	slices.SortStableFunc(out, func(x, y SignerChange) int {
		return cmp.Or(strings.Compare(x.Kind, y.Kind), strings.Compare(x.Signer, y.Signer))
	})
	return out
}

// onlyIn calls fn for what only one of two lists has, be it as a further copy.
func onlyIn[T comparable](a, b []T, fn func(v T, in string)) {
	count := map[T]int{}
	for _, v := range b {
		count[v]++
	}
	for _, v := range a {
		if count[v]--; count[v] < 0 {
			fn(v, "a")
		}
	}
	for _, v := range b {
		if count[v] > 0 {
			count[v]--
			fn(v, "b")
		}
	}
}
