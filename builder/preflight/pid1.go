// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"path"
	"slices"
)

// inits are programs that refuse to run, or do something else, where they are not PID 1. One that
// is called init is taken for such a program whatever it is: of sysvinit, of busybox, of s6-overlay.
var inits = []string{"systemd", "openrc-init", "runit", "runit-init", "finit", "shepherd"}

// NeedsPID1 says whether the app is known to run as PID 1 only.
func (r Request) NeedsPID1() bool {
	command := argv(r.App)
	if len(command) == 0 {
		return false
	}
	f, err := r.find(command[0])
	return err == nil && (path.Base(command[0]) == "init" || slices.Contains(inits, path.Base(f.path)))
}
