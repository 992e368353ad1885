// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"
)

// DHCP message types (RFC 2132, 9.6).
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpAck      = 5
	dhcpNak      = 6
)

// DHCP options (RFC 2132) that are sent or read.
const (
	optMask       = 1
	optRouter     = 3
	optResolvers  = 6
	optHostname   = 12
	optAddress    = 50
	optLease      = 51
	optType       = 53
	optServer     = 54
	optParameters = 55
	optRenewal    = 58
	optEnd        = 255
)

var dhcpMagic = []byte{99, 130, 83, 99}

const (
	dhcpHeader = 236 // up to the magic number
	dhcpLeast  = 300 // what BOOTP relays expect (RFC 1542, 2.1)
	infinite   = 1<<32 - 1
)

// query is a message of the client. Zero addresses are left out.
type query struct {
	kind     byte
	id       uint32
	mac      [6]byte
	current  netip.Addr // ciaddr: the address in use, when renewing
	wanted   netip.Addr // option 50
	server   netip.Addr // option 54
	hostname string
}

// dhcpBuild encodes q (RFC 2131, 2). Without an address of its own the client
// asks for answers by broadcast.
func dhcpBuild(q *query) []byte {
	b := make([]byte, dhcpHeader, dhcpLeast)
	b[0], b[1], b[2] = 1, 1, 6 // BOOTREQUEST, Ethernet, six bytes
	binary.BigEndian.PutUint32(b[4:], q.id)
	if q.current.IsValid() {
		copy(b[12:], q.current.AsSlice())
	} else {
		b[10] = 0x80
	}
	copy(b[28:], q.mac[:])
	b = append(b, dhcpMagic...)
	b = append(b, optType, 1, q.kind)
	if q.wanted.IsValid() {
		b = append(append(b, optAddress, 4), q.wanted.AsSlice()...)
	}
	if q.server.IsValid() {
		b = append(append(b, optServer, 4), q.server.AsSlice()...)
	}
	if q.hostname != "" {
		b = append(append(b, optHostname, byte(len(q.hostname))), q.hostname...)
	}
	b = append(b, optParameters, 5, optMask, optRouter, optResolvers, optLease, optRenewal, optEnd)
	return append(b, make([]byte, max(0, dhcpLeast-len(b)))...)
}

// reply is a message of a server that this client can use.
type reply struct {
	kind      byte
	address   netip.Prefix
	router    netip.Addr // or zero
	resolvers []netip.Addr
	server    netip.Addr
	renewal   time.Duration // until the lease is to be renewed; 0 means never
}

// dhcpParse decodes the answer to q. It refuses what is not one, and addresses
// that no interface can have.
func dhcpParse(b []byte, q *query) (*reply, error) {
	if len(b) < dhcpHeader+len(dhcpMagic) || !bytes.Equal(b[dhcpHeader:dhcpHeader+len(dhcpMagic)], dhcpMagic) {
		return nil, errors.New("not a DHCP message")
	}
	if b[0] != 2 || binary.BigEndian.Uint32(b[4:]) != q.id || !bytes.Equal(b[28:34], q.mac[:]) {
		return nil, errors.New("not an answer to this client")
	}
	options, err := parseOptions(b[dhcpHeader+len(dhcpMagic):])
	if err != nil {
		return nil, err
	}
	if len(options[optType]) != 1 {
		return nil, errors.New("no message type")
	}
	r := &reply{kind: options[optType][0]}
	if r.kind == dhcpNak {
		return r, nil
	}
	if r.kind != dhcpOffer && r.kind != dhcpAck {
		return nil, fmt.Errorf("message type %d is not for a client", r.kind)
	}
	if r.server, err = oneAddress(options, optServer); err != nil {
		return nil, err
	}
	yours := netip.AddrFrom4([4]byte(b[16:20]))
	prefix, err := parseMask(options[optMask])
	if err != nil {
		return nil, err
	}
	if !usable(yours) {
		return nil, fmt.Errorf("address %s cannot be used", yours)
	}
	r.address = netip.PrefixFrom(yours, prefix)
	if router := addresses(options[optRouter]); len(router) > 0 && usable(router[0]) {
		r.router = router[0]
	}
	r.resolvers = addresses(options[optResolvers])
	r.renewal, err = renewal(options)
	return r, err
}

// parseOptions collects the options by number; one that occurs in several
// pieces is put together (RFC 3396).
func parseOptions(b []byte) (map[byte][]byte, error) {
	options := map[byte][]byte{}
	for len(b) > 0 {
		number := b[0]
		b = b[1:]
		switch number {
		case 0: // padding
			continue
		case optEnd:
			return options, nil
		}
		if len(b) == 0 || len(b)-1 < int(b[0]) {
			return nil, fmt.Errorf("option %d is cut short", number)
		}
		n := int(b[0])
		options[number] = append(options[number], b[1:1+n]...)
		b = b[1+n:]
	}
	return options, nil // without an end, as some servers send it
}

// parseMask returns the prefix length of a mask; servers that leave it out
// mean a single address.
func parseMask(mask []byte) (int, error) {
	if len(mask) == 0 {
		return 32, nil
	}
	if len(mask) != 4 {
		return 0, fmt.Errorf("subnet mask of %d bytes", len(mask))
	}
	m := binary.BigEndian.Uint32(mask)
	n := bits.LeadingZeros32(^m)
	if n == 0 || m != ^uint32(0)<<(32-n) {
		return 0, fmt.Errorf("subnet mask %s", netip.AddrFrom4([4]byte(mask)))
	}
	return n, nil
}

// renewal returns T1: as the server says, or half of the lease (RFC 2131, 4.4.5).
func renewal(options map[byte][]byte) (time.Duration, error) {
	lease := options[optLease]
	if len(lease) != 4 {
		return 0, errors.New("no lease time")
	}
	seconds := binary.BigEndian.Uint32(lease)
	if seconds == infinite {
		return 0, nil
	}
	t1 := seconds / 2
	if o := options[optRenewal]; len(o) == 4 {
		t1 = min(t1, binary.BigEndian.Uint32(o))
	}
	return max(leastRenewal, time.Duration(t1)*time.Second), nil
}

func oneAddress(options map[byte][]byte, number byte) (netip.Addr, error) {
	list := addresses(options[number])
	if len(list) != 1 || !usable(list[0]) {
		return netip.Addr{}, fmt.Errorf("option %d is not one address", number)
	}
	return list[0], nil
}

// addresses splits a list of IPv4 addresses; bytes that are left over are none.
func addresses(b []byte) []netip.Addr {
	var list []netip.Addr
	for ; len(b) >= 4; b = b[4:] {
		list = append(list, netip.AddrFrom4([4]byte(b)))
	}
	return list
}

// usable says whether an interface can have the address.
func usable(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] < 240
}
