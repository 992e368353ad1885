// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
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
	if err := mkdirAll("/etc"); err != nil {
		return fmt.Errorf("making /etc: %w", err)
	}
	_ = unix.Symlink("/proc/mounts", "/etc/mtab") // unless the image has its own
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
	return "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n" + address.String() + "\t" + hostname + "\n"
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
// would have made: the link is replaced, not its target. One that is mounted,
// below a read-only root, is ours already.
func writeEtc(path, content string) error {
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT && err != unix.EROFS && err != unix.EBUSY {
		return fmt.Errorf("replacing %s: %w", path, err)
	}
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer unix.Close(fd)
	if n, err := unix.Write(fd, []byte(content)); err != nil || n < len(content) {
		return fmt.Errorf("writing %s: %d of %d bytes: %w", path, n, len(content), err)
	}
	return nil
}
