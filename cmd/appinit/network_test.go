// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/tenon-build/tenon/loader/control"
)

func TestParseStatic(t *testing.T) {
	tests := []struct {
		config control.Configure
		err    string
	}{
		{control.Configure{}, ""},
		{control.Configure{Address: "10.0.0.2/24", Gateway: "10.0.0.1", Resolvers: []string{"10.0.0.1", "2001:db8::1"}}, ""},
		{control.Configure{Address: "10.0.0.2"}, "address"},
		{control.Configure{Address: "2001:db8::2/64"}, "not an IPv4 address"},
		{control.Configure{Address: "10.0.0.2/24", Gateway: "2001:db8::1"}, "gateway"},
		{control.Configure{Gateway: "10.0.0.1"}, "gateway"},
		{control.Configure{Resolvers: []string{"10.0.0.1\nsearch evil"}}, "resolvers"},
		{control.Configure{Resolvers: []string{"fe80::1%eth0\nsearch evil"}}, "zone"},
	}
	for _, test := range tests {
		_, err := parseStatic(&test.config)
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%+v: got %v, want %q", test.config, err, test.err)
		}
	}
}

func TestFirstInterface(t *testing.T) {
	class := t.TempDir()
	add := func(name, index string, device bool) {
		dir := class + "/" + name
		if device {
			dir += "/device"
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(class+"/"+name+"/ifindex", []byte(index+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	add("lo", "1", false)
	if name, err := firstInterface(class); err == nil {
		t.Errorf("lo alone: got %q", name)
	}
	add("sit0", "2", false)
	add("eth0", "10", true)
	add("eth1", "9", true)
	if name, err := firstInterface(class); name != "eth1" || err != nil {
		t.Errorf("got %q, %v, want eth1", name, err)
	}
}

func TestIdentity(t *testing.T) {
	for name, want := range map[string]bool{"web": true, "Web-1.example": true, "": false, "a b": false, "a\n::1 b": false, "-a": false, "ü": false, strings.Repeat("a", 64): false} {
		if validHostname(name) != want {
			t.Errorf("validHostname(%q) = %v", name, !want)
		}
	}
	if got := hosts("web", netip.Addr{}); !strings.HasSuffix(got, "\n127.0.1.1\tweb\n") {
		t.Errorf("hosts without an address: %q", got)
	}
	if got := hosts("web", netip.MustParseAddr("10.0.0.2")); !strings.HasSuffix(got, "\n10.0.0.2\tweb\n") {
		t.Errorf("hosts: %q", got)
	}
}

// A dangling link, as in images with systemd, is replaced, and no target made.
func TestWriteEtcReplacesLink(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("../run/stub-resolv.conf", dir+"/resolv.conf"); err != nil {
		t.Fatal(err)
	}
	if err := writeEtc(dir+"/resolv.conf", "nameserver 10.0.0.1\n"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(dir + "/resolv.conf"); err != nil || !info.Mode().IsRegular() {
		t.Errorf("got %v, %v", info, err)
	}
}

func TestFindPort(t *testing.T) {
	sys := t.TempDir()
	if got := findPort(sys, time.Now().Add(time.Hour)); got != "" {
		t.Errorf("without a device: got %q", got)
	}
	for path, name := range map[string]string{"vport0p1": "org.qemu.guest_agent.0", "vport0p2": control.PortName} {
		if err := os.MkdirAll(sys+"/class/virtio-ports/"+path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(sys+"/class/virtio-ports/"+path+"/name", []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := findPort(sys, time.Now()); got != "/dev/vport0p2" {
		t.Errorf("got %q, want /dev/vport0p2", got)
	}
	if err := os.MkdirAll(sys+"/class/misc/tenon-control", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := findPort(sys, time.Now()); got != "/dev/tenon-control" {
		t.Errorf("got %q, want /dev/tenon-control", got)
	}
}

// The kernel's struct has this size on every 64-bit machine.
func TestRtentrySize(t *testing.T) {
	if size := unsafe.Sizeof(rtentry{}); size != 120 {
		t.Errorf("rtentry has %d bytes, want 120", size)
	}
}
