// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/control"
)

// identify gives the machine its name and its time.
func identify(config *control.Configure) error {
	if !validHostname(config.Hostname) {
		return fmt.Errorf("hostname %q is not a host name of at most 63 bytes", config.Hostname)
	}
	if err := unix.Sethostname([]byte(config.Hostname)); err != nil {
		return fmt.Errorf("sethostname(%q): %w", config.Hostname, err)
	}
	if config.Time != 0 {
		now := unix.NsecToTimespec(config.Time)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
			return fmt.Errorf("setting the clock to %d ns: %w", config.Time, err)
		}
	}
	if err := os.MkdirAll("/etc", 0o755); err != nil {
		return err
	}
	if old, err := os.ReadFile("/etc/hostname"); err == nil && len(bytes.TrimSpace(old)) > 0 {
		return nil
	}
	return writeEtc("/etc/hostname", config.Hostname+"\n")
}

func validHostname(name string) bool {
	for _, c := range []byte(name) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return name != "" && len(name) <= 63 && !strings.HasPrefix(name, "-")
}

// hosts gives the machine's own name its address, as docker does, or Debian's
// 127.0.1.1 when it has none.
func hosts(hostname string, address netip.Addr) string {
	if !address.IsValid() {
		address = netip.AddrFrom4([4]byte{127, 0, 1, 1})
	}
	return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" + address.String() + "\t" + hostname + "\n"
}

func resolvConf(resolvers []netip.Addr) string {
	var b strings.Builder
	for _, r := range resolvers {
		b.WriteString("nameserver " + r.String() + "\n")
	}
	return b.String()
}

// writeEtc replaces what the image has at path, as docker does. A link there,
// such as that to systemd-resolved's file, points to what some other program
// would have made: the link is replaced, not its target.
func writeEtc(path, content string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}
