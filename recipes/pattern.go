// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// CheckPattern says whether a text is a doublestar pattern of paths without a
// leading slash, below the root.
func CheckPattern(pattern string) error {
	first, _, _ := strings.Cut(pattern, "/")
	if first == "" || first == "." || first == ".." || path.Clean(pattern) != pattern || !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("%q is not a pattern of a path without a leading slash", pattern)
	}
	return nil
}

// ErrNoMatch says that a pattern matches no file of an image; test with errors.Is.
var ErrNoMatch = errors.New("matches no file of the image")

// MatchPattern says whether a pattern that CheckPattern takes matches a path. A
// pattern that ends in /** matches what is below a directory, not the directory.
func MatchPattern(pattern, name string) bool {
	if strings.HasSuffix(pattern, "/**") {
		pattern += "/*"
	}
	return doublestar.MatchUnvalidated(pattern, name)
}

// Matches says whether one of the patterns matches a path.
func Matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return MatchPattern(pattern, name) })
}
