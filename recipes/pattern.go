// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"fmt"
	"path"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// CheckPattern says whether a text is a doublestar pattern of paths without a
// leading slash.
func CheckPattern(pattern string) error {
	if strings.HasPrefix(pattern, "/") || path.Clean(pattern) != pattern || !doublestar.ValidatePattern(pattern) {
		return fmt.Errorf("%q is not a pattern of a path without a leading slash", pattern)
	}
	return nil
}

// MatchPattern says whether a pattern that CheckPattern takes matches a path. A
// pattern that ends in /** matches what is below a directory, not the directory.
func MatchPattern(pattern, name string) bool {
	if strings.HasSuffix(pattern, "/**") {
		pattern += "/*"
	}
	return doublestar.MatchUnvalidated(pattern, name)
}
