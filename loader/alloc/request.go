// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Request is what an instance asks for. Either CPUs or CPUList says which CPUs.
type Request struct {
	CPUs    int    // how many
	CPUList CPUSet // exactly these

	// SplitCores allows that siblings of the instance's CPUs run other kernels.
	// Without it, what is left of a core is held, too, and idle.
	SplitCores bool

	Memory   int64 // bytes, rounded up to whole MiB or huge pages
	PageSize int64 // bytes of the huge pages that memory is made of; 0: ordinary memory

	Node    *int // the NUMA node that all CPUs and memory are on; nil: any
	Devices []DeviceRequest
	Bounds  Bounds

	// Offline says that the back end takes the CPUs, and their siblings, from the host's
	// kernel itself: there is no control group of them.
	Offline bool

	// ID is kept with the plan, for whoever finds what the instance holds and nothing
	// else of it. Package alloc makes nothing of it.
	ID string

	// Keep is what the instance has, where it is resized: CPUs that it keeps come
	// first, memory of the same size stays where it is. Held is without it.
	Keep *Plan
}

// DeviceRequest asks for one PCI function, or several of a class.
type DeviceRequest struct {
	Address string // 0000:03:00.0; one that the host uses is taken from it
	Class   string // first hexadecimal digits of the class: "02" network, "0200" Ethernet; none that the host uses
	Count   int    // how many of the class
}

// Bounds are the claims that the request has to be within: those of the bundle and
// of the policy, whichever is tighter. What is not in them is refused.
type Bounds struct {
	CPUs    Range
	Memory  Range            // bytes
	Devices map[string]Range // by class, as in DeviceRequest
}

// Range has both its ends.
type Range struct{ Min, Max int64 }

func (r Range) has(n int64) bool { return r.Min <= n && n <= r.Max }

// Held is what cannot be given.
type Held struct {
	Instances []Holding
	Host      Reserve
}

// Holding is what one instance holds.
type Holding struct {
	Owner string `json:"owner"`
	Plan  Plan   `json:"plan"`

	// Resident says that all of its memory was taken from the nodes before the
	// topology was read. Otherwise it is still to be subtracted from what is free.
	Resident bool `json:"resident"`
}

// Reserve is what the host keeps for itself.
type Reserve struct {
	CPUs    CPUSet   `json:"cpus"`    // empty: the core of its first CPU
	Memory  int64    `json:"memory"`  // bytes, on the first nodes that have as much
	Devices []string `json:"devices"` // addresses
}

// Plan is what an instance gets.
type Plan struct {
	CPUs       CPUSet       `json:"cpus"`       // those that it runs on
	Siblings   CPUSet       `json:"siblings"`   // the rest of their cores: held, and idle
	Memory     []NodeMemory `json:"memory"`     // by node
	PageSize   int64        `json:"pageSize"`   // bytes of a huge page; 0: ordinary memory
	Devices    []string     `json:"devices"`    // addresses of those that it is given
	Companions []string     `json:"companions"` // the rest of their IOMMU groups: held, and idle

	// Offline has the places of all HeldCPUs, where the request said that the back end
	// takes them offline.
	Offline []Place `json:"offline,omitempty"`
	ID      string  `json:"id,omitempty"` // the request's
}

// NodeMemory is memory on one node.
type NodeMemory struct {
	Node  int   `json:"node"`
	Bytes int64 `json:"bytes"`
}

// HeldCPUs are all that nobody else may use.
func (p *Plan) HeldCPUs() CPUSet { return p.CPUs.Union(p.Siblings) }

func (p *Plan) heldDevices() []string { return slices.Concat(p.Devices, p.Companions) }

func (p *Plan) bytes() (sum int64) {
	for _, m := range p.Memory {
		sum += m.Bytes
	}
	return sum
}

// Why a plan cannot be made; PlanError wraps one of them.
var (
	ErrRequest = errors.New("the request contradicts itself")
	ErrBounds  = errors.New("outside the claims")
	ErrHost    = errors.New("the host does not have it")
	ErrTaken   = errors.New("taken")
)

// PlanError says what is short.
type PlanError struct {
	Kind    error      // ErrRequest, ErrBounds, ErrHost or ErrTaken
	Reason  string     // CPUs 6-7 are held by "cache"
	Holders []string   // instances
	Groups  []Group    // control groups of others, where these have CPUs that are short
	Cpuset  Cpuset     // where they are
	Free    []NodeFree // where something is left
}

// NodeFree is what could be had on a node.
type NodeFree struct {
	Node   int    `json:"node"`
	CPUs   CPUSet `json:"cpus"`   // in whole cores, or not where the request splits them
	Memory int64  `json:"memory"` // bytes, of the request's page size
}

func (e *PlanError) Error() string { return e.Reason }

func (e *PlanError) Unwrap() error { return e.Kind }

// check refuses what no host could give.
func (r *Request) check() error {
	wrong := func(format string, args ...any) error {
		return &PlanError{Kind: ErrRequest, Reason: fmt.Sprintf(format, args...)}
	}
	outside := func(format string, args ...any) error {
		return &PlanError{Kind: ErrBounds, Reason: fmt.Sprintf(format, args...)}
	}
	if len(r.CPUList) > 0 && r.CPUs != 0 && r.CPUs != len(r.CPUList) {
		return wrong("%d CPUs are asked for, and %s are listed", r.CPUs, r.CPUList)
	}
	if n := int64(r.count()); n < 1 {
		return wrong("no CPU is asked for")
	} else if !r.Bounds.CPUs.has(n) {
		return outside("the claims are %d to %d CPUs, not %d", r.Bounds.CPUs.Min, r.Bounds.CPUs.Max, n)
	}
	if r.Memory < 0 || r.PageSize < 0 || r.Memory > 1<<60 {
		return wrong("%d bytes of memory in pages of %d are asked for", r.Memory, r.PageSize)
	}
	if !r.Bounds.Memory.has(r.Memory) {
		return outside("the claims are %s to %s of memory, not %s", size(r.Bounds.Memory.Min), size(r.Bounds.Memory.Max), size(r.Memory))
	}
	for _, d := range r.Devices {
		switch {
		case (d.Address == "") == (d.Class == ""):
			return wrong("a device has either an address or a class")
		case d.Class != "" && (d.Count < 1 || len(d.Class) > 6 || strings.Trim(d.Class, "0123456789abcdef") != ""):
			return wrong("%d devices of class %q are asked for: a class has up to 6 hexadecimal digits", d.Count, d.Class)
		}
	}
	return nil
}

func (r *Request) count() int { return max(r.CPUs, len(r.CPUList)) }

// unit is what memory comes in, in bytes.
func (r *Request) unit() int64 {
	if r.PageSize > 0 {
		return r.PageSize
	}
	return 1 << 20
}

func (r *Request) bytes() int64 { return (r.Memory + r.unit() - 1) / r.unit() * r.unit() }

// size writes bytes for people.
func size(bytes int64) string {
	if bytes%(1<<20) != 0 {
		return fmt.Sprintf("%d bytes", bytes)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
