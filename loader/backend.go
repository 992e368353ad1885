// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
)

// ErrClaims says that a configuration lies outside a bundle's claims.
var ErrClaims = errors.New("outside the bundle's claims")

// Backend boots bundles in one way.
type Backend interface {
	// Name is the target that a bundle must be built for.
	Name() manifest.Target

	// Can says what the back end is able to do; nobody asks it for more.
	Can() Capabilities

	// Check returns nil where this host can run the back end, else what is missing.
	Check() error

	// Load makes an instance that has not started yet. It takes what it needs
	// from v, which may be closed afterwards.
	Load(ctx context.Context, v *Verified, c Config) (Instance, error)
}

// Capabilities are what back ends differ in.
type Capabilities struct {
	Several  bool `json:"several"`  // instances at once, beside the host
	Resize   bool `json:"resize"`   // CPUs can be added and removed while an instance runs
	Input    bool `json:"input"`    // the console can be typed on
	Forwards bool `json:"forwards"` // ports of the host can be led to the instance
	Network  bool `json:"network"`  // there is a network interface for bundles that claim one
	Devices  bool `json:"devices"`  // PCI functions can be given
	Offline  bool `json:"offline"`  // the back end takes CPUs from the host's kernel itself; no control group

	// Isolation says what keeps instances apart, and what does not, in one line.
	Isolation string `json:"isolation"`
}

// Survivor is a back end whose instances outlive the process that started them.
//
// All that it holds of an instance, from before Load takes the first of it until Close
// or Discard has given back the last, can be found by Config.ID alone: whoever loaded it
// may be killed anywhere between.
type Survivor interface {
	Backend

	// List returns the IDs of all that the back end holds anything of, whoever loaded it.
	List() ([]string, error)

	// Alive says whether the instance that was started with an ID runs. On a host that
	// cannot run the back end, none does. After an error, it is taken to run.
	Alive(id string) (bool, error)

	// Attach returns the running instance that another process, which is gone, started
	// with c.ID, as if Load and Start had been called here: what it printed since goes
	// to c.Console, as far as it is kept. What it was told when it started is not told
	// again. ctx is for attaching: when it ends later, the instance goes on. The error
	// wraps fs.ErrNotExist where none runs; after any error, whatever runs goes on.
	Attach(ctx context.Context, c Config) (Instance, error)

	// Discard ends whatever there is of an instance, running or half loaded, and gives
	// back what was taken for it. Where there is nothing, it does nothing. After an
	// error, something is still held, and Discard is called again later.
	Discard(ctx context.Context, id string) error
}

// Instance is one booted, or bootable, bundle. Its methods may be called from
// several goroutines.
type Instance interface {
	// Start boots the instance. When ctx ends later, it is killed.
	Start(ctx context.Context) error

	// Signal sends a Linux signal to the app.
	Signal(number int) error

	// Type sends bytes to the console, as if they were typed there.
	Type(keys []byte) error

	// Resize makes a running instance use the CPUs of a plan, in their order: more or fewer
	// than before, or the same. What the plan holds is in the control group of
	// Config.Group; or it is taken offline before it is used, and what the plan does not
	// have any more is online again. Memory stays as it is. After an error, the instance has as many
	// as before, and runs on those of before. Before Linux 6.2, a change of the group
	// undoes the order: it is then called once more, with the same CPUs.
	Resize(ctx context.Context, p *alloc.Plan) error

	// Kill ends the instance at once.
	Kill() error

	// Wait returns how the app ended, once the instance is gone. An error says
	// that the instance ended without telling, for example by a kernel panic.
	Wait() (*control.Exit, error)

	// Close frees what Load took. It kills an instance that still runs. After an error,
	// something is still held: nobody else is given it.
	Close() error
}

// Settings are what a deployer may choose of an instance. What is zero is left to the bundle.
type Settings struct {
	CPUs     int               `json:"cpus,omitempty"`   // how many
	Memory   int64             `json:"memory,omitempty"` // bytes
	Hostname string            `json:"hostname,omitempty"`
	Env      map[string]string `json:"env,omitempty"` // values of the bundle's parameters
	Forwards []Forward         `json:"forwards,omitempty"`
}

// Config is what differs from instance to instance: the deployer's settings, and what
// the loader makes of them.
type Config struct {
	Settings

	// ID is 32 hexadecimal digits, those of no other instance of the host. Where there is
	// no Plan, it may be empty.
	ID string

	MaxCPUs int         // that Resize can get to; 0: CPUs
	Console io.Writer   // what the kernel and the app print
	Event   func(Event) // called for what the instance reports, in order

	// Plan is what the instance has of the host: its CPUs, as many as CPUs says,
	// and its Memory. nil: it runs anywhere.
	Plan *alloc.Plan

	// Group is the control group of the Plan's CPUs, as an absolute path; empty where the
	// back end takes them offline.
	Group string
}

// Forward leads connections to a port of the host to one of the instance. As text it
// is ADDRESS:HOST:GUEST/PROTOCOL; what is read may lack address (127.0.0.1) and
// protocol (tcp).
type Forward struct {
	Protocol    string // tcp or udp
	HostAddress string // IPv4 address
	HostPort    int
	GuestPort   int
}

func (f Forward) String() string {
	return fmt.Sprintf("%s:%d:%d/%s", f.HostAddress, f.HostPort, f.GuestPort, f.Protocol)
}

// MarshalText implements encoding.TextMarshaler.
func (f Forward) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Forward) UnmarshalText(text []byte) error {
	*f = Forward{Protocol: "tcp", HostAddress: "127.0.0.1"}
	spec, protocol, ok := strings.Cut(string(text), "/")
	if ok {
		f.Protocol = protocol
	}
	if f.Protocol != "tcp" && f.Protocol != "udp" {
		return fmt.Errorf("protocol %q is neither tcp nor udp", f.Protocol)
	}
	parts := strings.Split(spec, ":")
	if len(parts) == 3 {
		f.HostAddress, parts = parts[0], parts[1:]
	}
	if len(parts) != 2 {
		return errors.New("want [ADDRESS:]HOST:GUEST[/udp]")
	}
	if ip := net.ParseIP(f.HostAddress); ip == nil || ip.To4() == nil {
		return fmt.Errorf("%q is not an IPv4 address", f.HostAddress)
	}
	for i, into := range []*int{&f.HostPort, &f.GuestPort} {
		n, err := strconv.ParseUint(parts[i], 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("%q is not a port", parts[i])
		}
		*into = int(n)
	}
	return nil
}

// Event is one thing that an instance reported; exactly one pointer is set.
type Event struct {
	Since     time.Duration // since Start
	Ready     *control.Ready
	Health    *control.Health
	Heartbeat *control.Heartbeat
}

// Resolve fills in what is left to the bundle and refuses what lies outside
// its claims, before anything is touched. m is what Verified.Manifest returns.
func (c *Config) Resolve(backend manifest.Target, m *manifest.Manifest) error {
	if m == nil {
		return errors.New("the bundle was not verified")
	}
	if m.Target != backend {
		return fmt.Errorf("bundle %q is built for target %s, back end %s cannot boot it", m.Name, m.Target, backend)
	}
	if here := "linux/" + runtime.GOARCH; m.Platform != here {
		return fmt.Errorf("bundle %q is built for %s, this host is %s", m.Name, m.Platform, here)
	}
	if c.CPUs == 0 {
		c.CPUs = int(m.Claims.CPUs.Min)
	}
	if c.Memory == 0 {
		c.Memory = m.Claims.Memory.Min
	}
	if n := int64(c.CPUs); n < m.Claims.CPUs.Min || n > m.Claims.CPUs.Max {
		return fmt.Errorf("%w: %q takes %d to %d CPUs, not %d", ErrClaims, m.Name, m.Claims.CPUs.Min, m.Claims.CPUs.Max, n)
	}
	if c.MaxCPUs == 0 {
		c.MaxCPUs = c.CPUs
	}
	if n := int64(c.MaxCPUs); n < int64(c.CPUs) || n > m.Claims.CPUs.Max {
		return fmt.Errorf("%w: %q with %d CPUs can get to %d, not %d", ErrClaims, m.Name, c.CPUs, m.Claims.CPUs.Max, n)
	}
	c.Memory = (c.Memory + 1<<20 - 1) >> 20 << 20 // machines have whole MiB
	if c.Memory < m.Claims.Memory.Min || c.Memory > m.Claims.Memory.Max {
		return fmt.Errorf("%w: %q takes %d to %d MiB of memory, not %d", ErrClaims, m.Name, m.Claims.Memory.Min>>20, m.Claims.Memory.Max>>20, c.Memory>>20)
	}
	if len(c.Forwards) > 0 && m.Claims.Device("net") == nil {
		return fmt.Errorf("%w: %q has no network interface, so no port can be forwarded", ErrClaims, m.Name)
	}
	spec := m.Spec()
	_, err := spec.Environment(c.Env)
	return err
}
