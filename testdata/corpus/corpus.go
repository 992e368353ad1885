// SPDX-License-Identifier: Apache-2.0

// Package corpus makes OCI images that are each one quirk of the image
// specification's layers, and says what each unpacks to.
//
// In: nothing. Out: cases, each an image with the list of its files, or with
// the reason for which it must be refused. The expectations are written by hand
// from the specification; docs/layers.md has its rules and the cases that hold
// them. Judges compare what a program makes of an image with its expectation.
package corpus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/testdata/corpus/scan"
)

// Case is an image and what becomes of it.
type Case struct {
	Name   string // its quirk
	Layers []Layer

	// Want is the whole tree, in the order of the paths, or nil if the image is
	// to be refused with an error that contains Refused.
	Want    []scan.File
	Implied []string // paths that no layer has: their time is up to who unpacks
	Refused string

	// Umoci says why umoci 0.4.7 is wrong about an image, and is empty where it
	// must agree. It is not asked about what is to be refused.
	Umoci string

	// Alone says that the kernel takes it only as its whole root.
	Alone bool
}

// Cases returns the corpus.
func Cases() []Case {
	return slices.Concat(
		layerCases(), whiteoutCases(), opaqueCases(), replacementCases(), hardlinkCases(),
		attributeCases(), nameCases(), formatCases(), hostileCases(), refusedCases(),
	)
}

// image is a case that unpacks to the files of want.
func image(name string, layers []Layer, want ...File) Case {
	c := Case{Name: name, Layers: layers}
	c.Want, c.Implied = expectation(want)
	return c
}

// umoci marks a case that umoci gets wrong.
func (c Case) umoci(why string) Case {
	c.Umoci = why
	return c
}

func (c Case) alone() Case {
	c.Alone = true
	return c
}

// refused is a case that must not unpack.
func refused(name, why string, layers ...Layer) Case {
	return Case{Name: name, Layers: layers, Refused: why}
}

// Diff returns the lines of two lists that differ, or nothing.
func Diff(got, want []scan.File) string { return DiffLines(lines(got), lines(want)) }

func lines(files []scan.File) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.String()
	}
	return out
}

// DiffLines is Diff of what scan.File.String wrote.
func DiffLines(got, want []string) string {
	var out strings.Builder
	for _, line := range want {
		if !slices.Contains(got, line) {
			fmt.Fprintf(&out, "\nwant %s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			fmt.Fprintf(&out, "\ngot  %s", line)
		}
	}
	if out.Len() == 0 && len(got) != len(want) {
		fmt.Fprintf(&out, "got %d files, want %d", len(got), len(want))
	}
	return out.String()
}
