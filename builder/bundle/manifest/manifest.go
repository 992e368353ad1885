// SPDX-License-Identifier: Apache-2.0

// Package manifest defines the bundle manifest: the config blob of a bundle,
// and the part of it (Spec) that PID 1 of the app kernel reads.
//
// In: JSON. Out: a Manifest or Spec that has been checked. Refused: anything
// larger than MaxSize, unknown or repeated fields, another version, values out
// of range. The package imports little, because appinit links it.
package manifest

import (
	"time"
)

// Version is the format version that this package reads and writes. Bundles of version 1
// had a sealed initramfs inside the kernel image.
const Version = 2

// MaxSize is the largest manifest or spec that is read, in bytes.
const MaxSize = 1 << 20

// SpecPath and InitPath are where the build puts PID 1 and the file that it
// reads, inside the initramfs. PID 1 removes Dir before the app starts.
const (
	Dir      = "/.tenon"
	InitPath = Dir + "/init"
	SpecPath = Dir + "/spec.json"
)

// DefaultPath is the PATH of an app whose image sets none, as docker has it.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Manifest says what a bundle is: what it runs, what it needs, and what it was
// made from.
type Manifest struct {
	Version     int         `json:"version"`
	Name        string      `json:"name"`     // as in Spec
	Platform    string      `json:"platform"` // OCI platform, for example "linux/amd64"
	Target      Target      `json:"target"`
	Kernel      Kernel      `json:"kernel"`
	Initramfs   Initramfs   `json:"initramfs"`
	CommandLine string      `json:"commandLine"` // built in when sealed, to be passed by the loader when detached
	App         App         `json:"app"`
	Parameters  []Parameter `json:"parameters,omitempty"`
	Claims      Claims      `json:"claims"`
	Recipe      string      `json:"recipe"` // name of the recipe
	Image       Image       `json:"image"`
	Toolchain   Toolchain   `json:"toolchain"`

	// BundleVersion orders the bundles of a name, so that hosts can refuse an older
	// one: a semantic version such as 1.4.0, without build metadata. It may be empty.
	BundleVersion string `json:"bundleVersion,omitempty"`
}

// Kernel names what the kernel was built from. Digests are "sha256:" and 64
// hexadecimal digits.
type Kernel struct {
	Release string `json:"release"` // as uname -r will print it
	Source  string `json:"source"`  // digest of the source
	Config  string `json:"config"`  // digest of the resolved .config
}

// Initramfs describes the root file system.
type Initramfs struct {
	Sealed   bool   `json:"sealed"`   // the kernel image has its digest, and takes no other
	Digest   string `json:"digest"`   // of the compressed archive
	Size     int64  `json:"size"`     // compressed, in bytes
	Unpacked int64  `json:"unpacked"` // memory that it takes when unpacked, in bytes, whole pages
	Entries  int    `json:"entries"`
}

// App is what runs, in the terms of the OCI image configuration.
type App struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`  // NAME=VALUE
	User       string   `json:"user,omitempty"` // user, uid, user:group, uid:gid; empty is root
	WorkingDir string   `json:"workingDir,omitempty"`
	StopSignal string   `json:"stopSignal,omitempty"` // name (SIGTERM) or number; empty is SIGTERM
	Ports      []string `json:"ports,omitempty"`      // PORT/tcp or PORT/udp
	Health     *Health  `json:"health,omitempty"`

	// Volumes are directories that are mount points of their own and writable
	// even when ReadOnly is set. As in docker, a volume starts with what the
	// image has there: contents, modes, owners. It lives as long as the instance.
	Volumes []string `json:"volumes,omitempty"`

	// ReadOnly mounts the root read-only before the app starts. /dev, /run, /tmp
	// and the volumes stay writable.
	ReadOnly bool `json:"readOnly,omitempty"`

	// PIDNamespace runs the app as PID 1 of a PID namespace, as docker does, for
	// programs that insist on it. The app reaps its own orphans then, and signals
	// reach it only where it has a handler for them: pid_namespaces(7).
	PIDNamespace bool `json:"pidNamespace,omitempty"`
}

// Health is a check that PID 1 runs inside the instance: exactly one of TCP
// and Exec. Durations are in nanoseconds in JSON.
type Health struct {
	TCP      int           `json:"tcp,omitempty"`  // port on the loopback address that must accept a connection
	Exec     []string      `json:"exec,omitempty"` // command that must exit 0
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"`
	Retries  int           `json:"retries"` // failures in a row that make a healthy app unhealthy
}

// Parameter is an environment variable that a deployer may set per instance.
type Parameter struct {
	Name        string  `json:"name"`
	Type        string  `json:"type"` // string, int, bool
	Default     *string `json:"default,omitempty"`
	Description string  `json:"description,omitempty"`

	// Secret says that nothing prints a value. The default is in the bundle, for
	// everyone who has the bundle to read.
	Secret bool `json:"secret,omitempty"`
}

// Claims are the resources that an instance may be given.
type Claims struct {
	CPUs    Range    `json:"cpus"`              // whole CPUs
	Memory  Range    `json:"memory"`            // bytes; Min is what the kernel needs to boot
	Devices []Device `json:"devices,omitempty"` // at most one claim per kind
}

// Range is an inclusive range. Min is at least 1 and at most Max.
type Range struct {
	Min int64 `json:"min"`
	Max int64 `json:"max"`
}

// Device claims devices of one kind; the only kind so far is "net".
type Device struct {
	Kind  string `json:"kind"`
	Count Range  `json:"count"`
}

// Image is the OCI image that the initramfs was made from.
type Image struct {
	Reference string `json:"reference"` // registry reference, or TRANSPORT[:TAG] for local ones
	Digest    string `json:"digest"`    // of its OCI manifest
}

// Toolchain names the programs that made the kernel, each as it prints its
// own version.
type Toolchain struct {
	Compiler string `json:"compiler"`
	Linker   string `json:"linker"`
	Tenon    string `json:"tenon"`
}

// Spec is the part of the manifest that PID 1 needs.
type Spec struct {
	Version    int         `json:"version"`
	Name       string      `json:"name"` // default hostname: a DNS label of at most 63 bytes
	App        App         `json:"app"`
	Parameters []Parameter `json:"parameters,omitempty"`
	Network    bool        `json:"network"` // a network interface is claimed: configure it, by DHCP unless told otherwise
}

// Spec returns what PID 1 is to read.
func (m *Manifest) Spec() Spec {
	return Spec{Version: Version, Name: m.Name, App: m.App, Parameters: m.Parameters, Network: m.Claims.Device("net") != nil}
}

// Device returns the claim of that kind, or nil.
func (c *Claims) Device(kind string) *Device {
	for i := range c.Devices {
		if c.Devices[i].Kind == kind {
			return &c.Devices[i]
		}
	}
	return nil
}
