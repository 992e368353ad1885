// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// reserved are the directories of PID 1 and of the kernel. What is mounted over
// them, or below them, an app could not rely on.
var reserved = []string{Dir, "/proc", "/sys", "/dev"}

// checkVolumes refuses what cannot be a mount point.
func checkVolumes(volumes []string) error {
	seen := map[string]bool{}
	for _, v := range volumes {
		if !path.IsAbs(v) || path.Clean(v) != v || v == "/" || strings.ContainsRune(v, 0) {
			return fmt.Errorf("%q is not a clean absolute path below the root", v)
		}
		if dir := ReservedDir(v); dir != "" {
			return fmt.Errorf("%q is not the app's: %s is mounted by PID 1", v, dir)
		}
		if seen[v] {
			return fmt.Errorf("%q is there twice", v)
		}
		seen[v] = true
	}
	return nil
}

// ReservedDir returns the directory of PID 1 or of the kernel that an absolute
// path is in, or is; "" when it is in none.
func ReservedDir(name string) string {
	first, _, _ := strings.Cut(name[1:], "/")
	if slices.Contains(reserved, "/"+first) {
		return "/" + first
	}
	return ""
}
