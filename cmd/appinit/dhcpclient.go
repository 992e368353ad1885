// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dhcpTimeout  = 15 * time.Second // for a whole exchange
	firstRetry   = time.Second      // doubled each time
	leastRenewal = 10 * time.Second // whatever a server says
	retryRenewal = time.Minute
)

// dhcpClient keeps one interface configured (RFC 2131).
type dhcpClient struct {
	name      string
	mac       [6]byte
	hostname  string
	resolvers []netip.Addr // of the host, in place of the server's
}

func newDHCPClient(name, hostname string, resolvers []netip.Addr) (*dhcpClient, error) {
	text, err := readFile("/sys/class/net/" + name + "/address")
	if err != nil {
		return nil, fmt.Errorf("reading the address of %s: %w", name, err)
	}
	mac, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), ":", ""))
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("DHCP on %s: %q is not an Ethernet address", name, text)
	}
	return &dhcpClient{name: name, mac: [6]byte(mac), hostname: hostname, resolvers: resolvers}, nil
}

// acquire gets a lease and applies it.
func (c *dhcpClient) acquire() (*reply, error) {
	ack, err := c.exchange(time.Now().Add(dhcpTimeout))
	if err != nil {
		return nil, fmt.Errorf("DHCP on %s: %w", c.name, err)
	}
	config := ipConfig{address: ack.address, gateway: ack.router, resolvers: c.resolvers}
	if len(config.resolvers) == 0 {
		config.resolvers = ack.resolvers
	}
	return ack, config.apply(c.name, c.hostname)
}

// exchange is DISCOVER, OFFER, REQUEST, ACK, and from the start again, at
// growing intervals, when an answer does not come or is no.
func (c *dhcpClient) exchange(deadline time.Time) (*reply, error) {
	fd, err := c.socket()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for wait := firstRetry; ; wait *= 2 {
		until := time.Now().Add(wait)
		if until.After(deadline) {
			until = deadline
		}
		discover := c.query(dhcpDiscover)
		offer, err := c.ask(fd, discover, netip.Addr{}, until, dhcpOffer)
		if err == nil {
			request := c.query(dhcpRequest)
			request.id = discover.id
			request.wanted, request.server = offer.address.Addr(), offer.server
			offer, err = c.ask(fd, request, netip.Addr{}, until, dhcpAck)
		}
		if err == nil || !time.Now().Before(deadline) {
			return offer, err
		}
		time.Sleep(time.Until(until)) // what failed at once
	}
}

// keep renews the lease for as long as the machine runs. An address that no
// server renews is kept: to drop it would not help the app.
func (c *dhcpClient) keep(lease *reply) {
	for lease.renewal > 0 {
		time.Sleep(lease.renewal)
		for {
			next, err := c.renew(lease)
			if err != nil {
				next, err = c.acquire()
			}
			if err == nil {
				lease = next
				break
			}
			note("renewing the lease of %s: %v", lease.address, err)
			time.Sleep(retryRenewal)
		}
	}
}

// renew asks for more time: the server of the lease, then any.
func (c *dhcpClient) renew(lease *reply) (*reply, error) {
	fd, err := c.socket()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	for _, server := range []netip.Addr{lease.server, {}} {
		q := c.query(dhcpRequest)
		q.current = lease.address.Addr()
		var ack *reply
		ack, err = c.ask(fd, q, server, time.Now().Add(2*firstRetry), dhcpAck)
		if err == nil && ack.address != lease.address {
			err = fmt.Errorf("the server gave %s", ack.address)
		}
		if err == nil {
			return ack, nil
		}
	}
	return nil, err
}

func (c *dhcpClient) query(kind byte) *query {
	return &query{kind: kind, id: rand.Uint32(), mac: c.mac, hostname: c.hostname}
}

// socket returns a UDP socket that works on an interface without an address:
// bound to it, sending and receiving broadcasts.
func (c *dhcpClient) socket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
	}
	if err == nil {
		err = unix.BindToDevice(fd, c.name)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: 68})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("setting up a socket: %w", err)
	}
	return fd, nil
}

// ask sends q to the server, or to all, and returns the first answer of that
// kind. A refusal is an error.
func (c *dhcpClient) ask(fd int, q *query, server netip.Addr, until time.Time, kind byte) (*reply, error) {
	to := &unix.SockaddrInet4{Port: 67, Addr: [4]byte{255, 255, 255, 255}}
	if server.IsValid() {
		to.Addr = server.As4()
	}
	if err := unix.Sendto(fd, dhcpBuild(q), 0, to); err != nil {
		return nil, fmt.Errorf("sending: %w", err)
	}
	buf := make([]byte, 1500)
	for {
		left := unix.NsecToTimeval(max(time.Until(until), time.Millisecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &left); err != nil {
			return nil, err
		}
		n, err := unix.Read(fd, buf)
		if err == nil {
			if r, err := dhcpParse(buf[:n], q); err == nil && r.kind == kind {
				return r, nil
			} else if err == nil && r.kind == dhcpNak {
				return nil, errors.New("the server refused")
			}
		} else if err != unix.EAGAIN && err != unix.EINTR {
			return nil, fmt.Errorf("receiving: %w", err)
		}
		if !time.Now().Before(until) {
			return nil, errors.New("no answer from a server")
		}
	}
}
