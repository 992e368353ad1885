// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// Target is the back end that a bundle is built for.
type Target string

// The targets.
const (
	QEMU        Target = "qemu"        // a virtual machine
	Kexec       Target = "kexec"       // the whole machine
	Cokernel    Target = "cokernel"    // a kernel beside a stock host's
	Multikernel Target = "multikernel" // a kernel beside a patched host's
)

// Targets are all of them.
var Targets = []Target{QEMU, Kexec, Cokernel, Multikernel}

// TargetNames lists them for people.
func TargetNames() string {
	var names []string
	for _, t := range Targets {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// Check returns an error that names the targets there are, unless t is one of them.
func (t Target) Check() error {
	if !slices.Contains(Targets, t) {
		return fmt.Errorf("%q is none of %s", string(t), TargetNames())
	}
	return nil
}
