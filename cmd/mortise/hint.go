// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/docker/go-units"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/cokernel"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/strictjson"
	"github.com/tenon-build/tenon/signer/trust"
)

// hints are the next steps for errors, the most particular first.
var hints = []struct {
	err  error
	hint string
}{
	{loader.ErrNoTrust, "a policy says who may run what on this host: docs/trust.md"},
	{ownership.ErrUnsafe, "'chown root FILE' and 'chmod go-w FILE', and the same for the directories that it is in"},
	{loader.ErrPrivateKey, "give the public key, or a certificate with --cert"},
	{loader.ErrUnsigned, "'tenon sign BUNDLE --key KEY' signs it, where the key is"},
	{revocation.ErrInvalid, "whoever signs the list issues it anew: 'tenon key revoke --list FILE --key KEY'"},
	{loader.ErrRollback, "what was seen is in trust.json of the --state directory"},
	{trust.ErrName, cli.NameHint},
	{instance.ErrNotFound, "'mortise ps' lists the instances"},
	{instance.ErrExists, "choose another --name, or remove it: 'mortise rm'; 'mortise run --replace' does so itself"},
	{instance.ErrUnattended, "'mortise start' attends to it again"},
	{instance.ErrHolding, "'mortise gc' gives back what nobody looks after"},
	{alloc.ErrJournal, "it says what is held: after a reboot nothing is, and it can be removed; so it can when no control group mortise-* is left, and no instance runs"},
	{cokernel.ErrNoModule, "'modprobe mortise'; docs/cokernel.md says how it is installed, and its key enrolled"},
	{cokernel.ErrUntrusted, "docs/cokernel.md says what a host's kernel takes, locked down or not"},
	{qemu.ErrNoQEMU, "install qemu-system-x86"},
	{syscall.ENOSPC, "make room where --root is"},
}

func hint(err error) string {
	if plan := new(alloc.PlanError); errors.As(err, &plan) {
		return planHint(plan)
	}
	if errors.Is(err, instance.ErrRecord) {
		if errors.Is(err, strictjson.ErrVersion) {
			return "it is another version's: use that mortise, or remove it: 'mortise rm --force'"
		}
		return "'mortise gc' removes damaged instances"
	}
	if t := new(instance.TransitionError); errors.As(err, &t) {
		return stateHint(t)
	}
	if h := cli.RegistryHint(err); h != "" {
		return h
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	switch {
	case errors.Is(err, strictjson.ErrVersion):
		return "the bundle was made by another version of tenon: build it again"
	case errors.Is(err, bundle.ErrInvalid):
		return "a bundle is what 'tenon build' writes: oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG"
	case errors.Is(err, fs.ErrPermission):
		return "mortise runs as root"
	}
	return ""
}

// planHint says what could be had instead, and from whom the rest.
func planHint(e *alloc.PlanError) string {
	var parts []string
	for _, f := range e.Free {
		if len(f.CPUs) > 0 {
			parts = append(parts, fmt.Sprintf("free on node %d: CPUs %s, %s of memory", f.Node, f.CPUs, units.BytesSize(float64(f.Memory))))
		}
	}
	if len(e.Groups) > 0 {
		parts = append(parts, groupHint(&e.Groups[0], e.Cpuset))
	}
	if len(e.Holders) > 0 {
		parts = append(parts, fmt.Sprintf("'mortise stop %s' gives back what it holds", e.Holders[0]))
	}
	return strings.Join(parts, "; ")
}

// groupHint says how a control group's CPUs become free.
func groupHint(g *alloc.Group, c alloc.Cpuset) string {
	dir := shellQuote(path.Join("/", c.Dir, g.Name))
	unit := strings.HasSuffix(g.Name, ".slice") || strings.HasSuffix(g.Name, ".scope") || strings.HasSuffix(g.Name, ".service")
	switch {
	case strings.HasPrefix(g.Name, "mortise-"):
		return "it is of a mortise with another --root, which gives it back"
	case c.Version == 1:
		return fmt.Sprintf("to free CPUs of that group, leave it others: 'for f in $(find %s -depth -name cpuset.cpus); do echo LIST > $f; done'", dir)
	case unit && !g.Partition:
		return fmt.Sprintf("'systemctl set-property --runtime %s AllowedCPUs=' frees them", shellQuote(g.Name))
	case g.Partition:
		return fmt.Sprintf("if nobody needs that partition, 'echo member > %[1]s/cpuset.cpus.partition; echo > %[1]s/cpuset.cpus' frees them", dir)
	}
	return fmt.Sprintf("'echo > %s/cpuset.cpus' frees them", dir)
}

// shellQuote writes a name that others chose as one word of a shell's.
func shellQuote(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-@") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func stateHint(t *instance.TransitionError) string {
	switch {
	case t.State == instance.Running && t.Verb == "remove":
		return "stop it first, or 'mortise rm --force'"
	case t.State == instance.Running:
		return "'mortise stop' ends it"
	case t.Want == instance.Running && t.Verb != "stop" && t.Verb != "kill":
		return "'mortise start' starts it"
	}
	return ""
}
