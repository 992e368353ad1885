// SPDX-License-Identifier: Apache-2.0

// Package instance is what a host knows of its instances.
//
// In: records, one for each instance, as JSON in a directory, by default
// /run/mortise. Out: the same, read whole or not at all, whatever died in between;
// of instances whose supervisor is gone, what has to be given back to the host.
// Refused: steps that a state does not allow; records that are damaged, of another
// version, or writable by others; a directory that is not the caller's own.
//
// Several processes may use one directory at once. Two kinds of locks, both
// flock(2), keep them apart: one for the directory, under which resources are planned
// and names are claimed and given up, and one for each instance, which Update holds
// for the time of a write. Whoever needs both takes the directory's first.
package instance

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/registry"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Version is the version of records that this package reads and writes.
const Version = 1

// ErrRecord says that an instance is there, but its record cannot be used. Of a
// record of another version, the error also wraps strictjson.ErrVersion.
var ErrRecord = errors.New("bad record")

// ErrName says that a name cannot be an instance's.
var ErrName = errors.New("is not a letter or digit and at most 62 of letters, digits, '-', '.', '_'")

// Record is what is known of one instance. The JSON names do not change within a
// version. Times are RFC 3339 in UTC.
type Record struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	ID      string `json:"id"` // 32 hexadecimal digits, of no other instance, also of that name
	State   State  `json:"state"`

	Bundle  Bundle          `json:"bundle"`
	Backend manifest.Target `json:"backend"`
	Request Request         `json:"request"`
	Held    Held            `json:"held"`

	// Supervisor is the process that looks after the instance: who runs it, from
	// before anything is taken. When that process is gone, Reconcile takes over. It is
	// nil while nobody has to: created and waiting, or ended and given back; and of an
	// instance that runs on without one: see Unattended.
	Supervisor *Process `json:"supervisor,omitempty"`

	BootID  string    `json:"bootID"`           // of the host, when the instance was created, or found to run unattended
	Starts  int       `json:"starts"`           // how often it was loaded
	Created time.Time `json:"created"`          // the record
	Started time.Time `json:"started,omitzero"` // the last time
	Ended   time.Time `json:"ended,omitzero"`   // the last time

	Exit   *control.Exit   `json:"exit,omitempty"`   // what the app ended with; signal 9 where the machine was ended
	Reason string          `json:"reason,omitempty"` // of a failure, one line
	Health *control.Health `json:"health,omitempty"` // the last that was reported
}

// Bundle is what the instance runs, as it was verified.
type Bundle struct {
	Reference string `json:"reference"` // as it was given
	Digest    string `json:"digest"`    // sha256: and 64 hexadecimal digits
	Name      string `json:"name"`      // the manifest's
	Version   string `json:"version"`   // the manifest's; may be empty
	Identity  string `json:"identity"`  // who signed; empty: unsigned bundles were allowed
}

// Request is what was asked for when the instance was created, and what each start
// asks for again. What is zero is left to the bundle.
type Request struct {
	loader.Settings
	Backend     manifest.Target   `json:"backend,omitempty"`     // that it is to run on; another one than the bundle's target refuses it
	CPUList     alloc.CPUSet      `json:"cpuList,omitempty"`     // exactly these
	SplitCores  bool              `json:"splitCores,omitempty"`  // siblings may run other kernels
	PageSize    int64             `json:"pageSize,omitempty"`    // bytes of the huge pages of the memory; 0: ordinary memory
	Node        *int              `json:"node,omitempty"`        // NUMA node of all of it
	Devices     []string          `json:"devices,omitempty"`     // PCI addresses
	HangTimeout time.Duration     `json:"hangTimeout,omitempty"` // nanoseconds without a sign of life after which it is ended; 0: never
	Trust       loader.Trust      `json:"trust"`
	Registries  registry.Settings `json:"registries,omitzero"` // how the bundle's registry is reached
}

// Held is what the instance has of the host, in plain values. What is planned counts
// before it is taken, and until it is given back.
type Held struct {
	CPUs    string   `json:"cpus"`    // in the kernel's list format, "2-3,8"
	Memory  []Memory `json:"memory"`  // by node, ascending
	Devices []string `json:"devices"` // PCI addresses, "0000:03:00.0"
}

// Memory is memory of one NUMA node.
type Memory struct {
	Node  int   `json:"node"`
	Bytes int64 `json:"bytes"`
}

// Empty says whether nothing is held.
func (h *Held) Empty() bool { return h.CPUs == "" && len(h.Memory) == 0 && len(h.Devices) == 0 }

// CheckName refuses names that cannot be an instance's: they are a letter or digit,
// then letters, digits, '-', '.' and '_', together at most 63.
func CheckName(name string) error {
	const first = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if name == "" || len(name) > 63 || !strings.Contains(first, name[:1]) || strings.Trim(name, first+"-._") != "" {
		return fmt.Errorf("name %.80q %w", name, ErrName)
	}
	return nil
}

// decode reads a record strictly and checks it.
func decode(data []byte) (*Record, error) {
	var r Record
	if err := strictjson.DecodeVersion(data, limit.Record, Version, &r); err != nil {
		return nil, err
	}
	return &r, r.check()
}

// encode checks a record and writes it as one line. Lists are lists, also in r: whoever
// reads the JSON need not expect null.
func (r *Record) encode() ([]byte, error) {
	if r.Held.Memory == nil {
		r.Held.Memory = []Memory{}
	}
	if r.Held.Devices == nil {
		r.Held.Devices = []string{}
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	var data bytes.Buffer
	out := json.NewEncoder(&data)
	out.SetEscapeHTML(false) // what a guest says must not grow
	err := out.Encode(r)
	if err == nil && data.Len() > limit.Record {
		err = fmt.Errorf("larger than %d bytes", limit.Record)
	}
	return data.Bytes(), err
}

// check refuses what a reader could not rely on.
func (r *Record) check() error {
	if err := CheckName(r.Name); err != nil {
		return err
	}
	digest, isSHA256 := strings.CutPrefix(r.Bundle.Digest, "sha256:")
	switch {
	case r.Version != Version:
		return fmt.Errorf("%w %d", strictjson.ErrVersion, r.Version)
	case !isHex(r.ID, 32):
		return fmt.Errorf("id: %.80q has not 32 hexadecimal digits", r.ID)
	case !isSHA256 || !isHex(digest, 64):
		return fmt.Errorf("bundle.digest: %.80q is not sha256: and 64 hexadecimal digits", r.Bundle.Digest)
	case r.Created.IsZero():
		return errors.New("created: missing")
	case r.Health != nil && r.Health.Status != "healthy" && r.Health.Status != "unhealthy":
		return fmt.Errorf("health.status: %.80q", r.Health.Status)
	}
	if err := r.checkText(); err != nil {
		return err
	}
	if err := r.Held.check(); err != nil {
		return fmt.Errorf("held.%w", err)
	}
	return r.checkFields()
}

// checkText refuses what would not be one line on a terminal.
func (r *Record) checkText() error {
	type field struct {
		name, text string
		required   bool
	}
	fields := []field{
		{"backend", string(r.Backend), true}, {"bootID", r.BootID, true}, {"reason", r.Reason, false},
		{"bundle.reference", r.Bundle.Reference, true}, {"bundle.name", r.Bundle.Name, true},
		{"bundle.version", r.Bundle.Version, false}, {"bundle.identity", r.Bundle.Identity, false},
	}
	if r.Exit != nil {
		fields = append(fields, field{"exit.error", r.Exit.Error, false})
	}
	if r.Health != nil {
		fields = append(fields, field{"health.output", r.Health.Output, false})
	}
	for _, f := range fields {
		if f.text != control.Line(f.text) || f.required && f.text == "" {
			return fmt.Errorf("%s: %.80q is not one printable line", f.name, f.text)
		}
	}
	return nil
}

// checkFields refuses fields that do not go with the state.
func (r *Record) checkFields() error {
	up, ended := r.State == Loaded || r.State == Running, r.ended()
	switch {
	case !up && !ended && r.State != Created:
		return fmt.Errorf("state: %.80q is unknown", string(r.State))
	case r.State == Loaded && r.Supervisor == nil:
		return fmt.Errorf("supervisor: missing, of an instance that is %s", r.State)
	case r.Supervisor != nil && (r.Supervisor.PID < 1 || r.Supervisor.BootID == ""):
		return errors.New("supervisor: pid or bootID missing")
	case r.State == Running && r.Started.IsZero():
		return errors.New("started: missing")
	case ended == r.Ended.IsZero():
		return fmt.Errorf("ended: does not go with the state %s", r.State)
	case (r.State == Failed) == (r.Reason == ""):
		return fmt.Errorf("reason: does not go with the state %s", r.State)
	case r.Exit != nil && !ended:
		return fmt.Errorf("exit: does not go with the state %s", r.State)
	}
	return nil
}

func (h *Held) check() error {
	if strings.Trim(h.CPUs, "0123456789-,") != "" {
		return fmt.Errorf("cpus: %.80q is not a list of CPUs", h.CPUs)
	}
	node := -1
	for _, m := range h.Memory {
		if m.Node <= node || m.Bytes < 1 {
			return fmt.Errorf("memory: node %d with %d bytes: nodes ascend, and of each there is some", m.Node, m.Bytes)
		}
		node = m.Node
	}
	for _, d := range h.Devices {
		if d == "" || strings.Trim(d, "0123456789abcdef:.") != "" {
			return fmt.Errorf("devices: %.80q is not a PCI address", d)
		}
	}
	return nil
}

func isHex(s string, digits int) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) == digits && s == strings.ToLower(s)
}
