// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/control"
)

// ipConfig is how the first interface is configured.
type ipConfig struct {
	address   netip.Prefix // IPv4
	gateway   netip.Addr   // IPv4, or zero
	resolvers []netip.Addr
}

// startNetwork configures the first network interface, where the bundle claims
// one: as the host says, or by DHCP. Interfaces take ioctls, not netlink: fewer
// lines, and no message format to get wrong.
func (p *pid1) startNetwork(config *control.Configure, claimed bool) error {
	static, err := parseStatic(config)
	if err != nil {
		return fmt.Errorf("the host's configuration is refused: %w", err)
	}
	if !claimed {
		if static.address.IsValid() {
			return errors.New("the host's configuration is refused: it has an address, but the bundle claims no network interface")
		}
		return static.writeFiles(config.Hostname)
	}
	name, err := firstInterface("/sys/class/net")
	if err != nil {
		return err
	}
	if static.address.IsValid() {
		return static.apply(name, config.Hostname)
	}
	if err := linkUp(name); err != nil {
		return err
	}
	client, err := newDHCPClient(name, config.Hostname, static.resolvers)
	if err != nil {
		return err
	}
	lease, err := client.acquire()
	if err != nil {
		return err
	}
	p.spawn(func() { client.keep(lease) })
	return nil
}

// parseStatic parses and checks the addresses that the host sent.
func parseStatic(config *control.Configure) (*ipConfig, error) {
	var c ipConfig
	var err error
	if config.Address != "" {
		c.address, err = netip.ParsePrefix(config.Address)
		if err != nil {
			return nil, fmt.Errorf("address: %w", err)
		}
		if !c.address.Addr().Is4() {
			return nil, fmt.Errorf("address: %s is not an IPv4 address", c.address)
		}
	}
	if config.Gateway != "" {
		c.gateway, err = netip.ParseAddr(config.Gateway)
		if err != nil {
			return nil, fmt.Errorf("gateway: %w", err)
		}
		if !c.gateway.Is4() || config.Address == "" {
			return nil, errors.New("gateway: needs an IPv4 address, and an address to go with it")
		}
	}
	for _, text := range config.Resolvers {
		r, err := netip.ParseAddr(text)
		if err == nil && r.Zone() != "" {
			err = errors.New("an address with a zone") // which could hold another line of the file
		}
		if err != nil {
			return nil, fmt.Errorf("resolvers: %w", err)
		}
		c.resolvers = append(c.resolvers, r)
	}
	return &c, nil
}

// firstInterface returns the device with the lowest index. Those of the kernel
// itself, such as lo and sit0, have no device.
func firstInterface(class string) (string, error) {
	entries, err := readDir(class)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", class, err)
	}
	first, lowest := "", 0
	for _, entry := range entries {
		dir := class + "/" + entry
		if unix.Access(dir+"/device", unix.F_OK) != nil {
			continue
		}
		data, err := readFile(dir + "/ifindex")
		if err != nil {
			return "", fmt.Errorf("reading %s/ifindex: %w", dir, err)
		}
		index, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			return "", fmt.Errorf("reading %s/ifindex: %w", dir, err)
		}
		if first == "" || index < lowest {
			first, lowest = entry, index
		}
	}
	if first == "" {
		return "", errors.New("the bundle claims a network interface, but the machine has none")
	}
	return first, nil
}

// apply configures the interface, and the files that tell of it.
func (c *ipConfig) apply(name, hostname string) error {
	if err := setAddress(name, c.address); err != nil {
		return err
	}
	if c.gateway.IsValid() {
		// Clouds give a /32, and a gateway beyond it that is on the link all the same.
		if !c.address.Contains(c.gateway) {
			if err := addRoute(name, netip.PrefixFrom(c.gateway, 32), netip.Addr{}); err != nil {
				return err
			}
		}
		if err := addRoute(name, netip.PrefixFrom(netip.IPv4Unspecified(), 0), c.gateway); err != nil {
			return err
		}
	}
	return c.writeFiles(hostname)
}

// writeFiles writes /etc/hosts and, when resolvers are known, /etc/resolv.conf.
func (c *ipConfig) writeFiles(hostname string) error {
	if err := writeEtc("/etc/hosts", hosts(hostname, c.address.Addr())); err != nil {
		return err
	}
	if len(c.resolvers) == 0 {
		return nil
	}
	return writeEtc("/etc/resolv.conf", resolvConf(c.resolvers))
}

// setAddress gives an interface its address and brings it up.
func setAddress(name string, address netip.Prefix) error {
	for _, step := range []struct {
		request uint
		what    string
		value   netip.Addr
	}{
		{unix.SIOCSIFADDR, "SIOCSIFADDR", address.Addr()},
		{unix.SIOCSIFNETMASK, "SIOCSIFNETMASK", netmask(address)},
	} {
		r, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := r.SetInet4Addr(step.value.AsSlice()); err != nil {
			return err
		}
		if err := ioctl(r, step.request, step.what); err != nil {
			return err
		}
	}
	return linkUp(name)
}

func linkUp(name string) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := ioctl(r, unix.SIOCGIFFLAGS, "SIOCGIFFLAGS"); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	return ioctl(r, unix.SIOCSIFFLAGS, "SIOCSIFFLAGS")
}

func netmask(p netip.Prefix) netip.Addr {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), p.Bits()).Masked().Addr()
}

// ioctl makes one request on an interface; what names it in the error.
func ioctl(r *unix.Ifreq, request uint, what string) error {
	return withSocket(func(fd int) error {
		if err := unix.IoctlIfreq(fd, request, r); err != nil {
			return fmt.Errorf("%s on %s: %w", what, r.Name(), err)
		}
		return nil
	})
}

// rtentry is struct rtentry of <linux/route.h>.
type rtentry struct {
	_                     uintptr
	dst, gateway, genmask unix.RawSockaddrInet4
	flags                 uint16
	_                     int16
	_                     uintptr
	_                     uintptr
	metric                int16
	dev                   *byte
	mtu, window           uintptr
	irtt                  uint16
}

// addRoute adds a route, through the gateway unless that is zero. One that is
// there already is fine.
func addRoute(name string, to netip.Prefix, gateway netip.Addr) error {
	dev, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	route := rtentry{dst: sockaddr(to.Addr()), genmask: sockaddr(netmask(to)), flags: unix.RTF_UP, dev: dev}
	if gateway.IsValid() {
		route.gateway = sockaddr(gateway)
		route.flags |= unix.RTF_GATEWAY
	}
	return withSocket(func(fd int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route)))
		if errno != 0 && errno != unix.EEXIST {
			return fmt.Errorf("SIOCADDRT %s via %s on %s: %w", to, gateway, name, errno)
		}
		return nil
	})
}

func sockaddr(a netip.Addr) unix.RawSockaddrInet4 {
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
}

func withSocket(f func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	return f(fd)
}
