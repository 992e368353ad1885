// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

var testQuery = query{kind: dhcpDiscover, id: 0x01020304, mac: [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}, hostname: "web"}

// serverReply is a message as slirp sends it, with options in place of its own.
func serverReply(kind byte, options ...byte) []byte {
	b := make([]byte, dhcpHeader)
	b[0], b[1], b[2] = 2, 1, 6
	binary.BigEndian.PutUint32(b[4:], testQuery.id)
	copy(b[16:], []byte{10, 0, 2, 15})
	copy(b[28:], testQuery.mac[:])
	b = append(b, dhcpMagic...)
	b = append(b, optType, 1, kind)
	return append(append(b, options...), optEnd)
}

var usualOptions = []byte{
	optServer, 4, 10, 0, 2, 2,
	optMask, 4, 255, 255, 255, 0,
	optRouter, 4, 10, 0, 2, 2,
	optResolvers, 8, 10, 0, 2, 3, 8, 8, 8, 8,
	optLease, 4, 0, 1, 0x51, 0x80,
}

func TestDHCPParse(t *testing.T) {
	got, err := dhcpParse(serverReply(dhcpOffer, usualOptions...), &testQuery)
	want := &reply{
		kind:      dhcpOffer,
		address:   netip.MustParsePrefix("10.0.2.15/24"),
		router:    netip.MustParseAddr("10.0.2.2"),
		resolvers: []netip.Addr{netip.MustParseAddr("10.0.2.3"), netip.MustParseAddr("8.8.8.8")},
		server:    netip.MustParseAddr("10.0.2.2"),
		renewal:   12 * time.Hour,
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestDHCPParseVariants(t *testing.T) {
	with := func(options ...byte) []byte {
		return serverReply(dhcpAck, append(bytes.Clone(usualOptions), options...)...)
	}
	without := func(number byte) []byte {
		var options []byte
		for o := usualOptions; len(o) > 0; o = o[2+o[1]:] {
			if o[0] != number {
				options = append(options, o[:2+o[1]]...)
			}
		}
		return serverReply(dhcpAck, options...)
	}
	replaced := func(number byte, value ...byte) []byte {
		b := bytes.TrimSuffix(without(number), []byte{optEnd})
		return append(append(b, number, byte(len(value))), value...)
	}
	patched := func(at int, value ...byte) []byte {
		b := with()
		copy(b[at:], value)
		return b
	}
	tests := []struct {
		name   string
		packet []byte
		err    string // empty: accepted
	}{
		{"usual", with(), ""},
		{"refusal", serverReply(dhcpNak), ""},
		{"padding, and no end", append(bytes.TrimSuffix(with(), []byte{optEnd}), 0, 0, 0), ""},
		{"resolvers in two pieces", with(optResolvers, 4, 1, 1, 1, 1), ""},
		{"no router", without(optRouter), ""},
		{"no mask", without(optMask), ""},
		{"empty", nil, "not a DHCP message"},
		{"BOOTP without magic", patched(dhcpHeader, 0), "not a DHCP message"},
		{"a request", patched(0, 1), "not an answer"},
		{"another's id", patched(4, 9), "not an answer"},
		{"another's address", patched(28, 9), "not an answer"},
		{"option cut short", append(bytes.TrimSuffix(with(), []byte{optEnd}), 12, 200, 'a'), "cut short"},
		{"option without length", append(bytes.TrimSuffix(with(), []byte{optEnd}), 12), "cut short"},
		{"a client's message", serverReply(dhcpRequest, usualOptions...), "not for a client"},
		{"no type", replacedType(with()), "no message type"},
		{"no server", without(optServer), "option 54"},
		{"no lease", without(optLease), "no lease"},
		{"mask with a hole", replaced(optMask, 255, 0, 255, 0), "subnet mask"},
		{"mask of zeros", replaced(optMask, 0, 0, 0, 0), "subnet mask"},
		{"mask of three bytes", replaced(optMask, 255, 255, 255), "subnet mask"},
		{"address 0.0.0.0", patched(16, 0, 0, 0, 0), "cannot be used"},
		{"loopback address", patched(16, 127, 0, 0, 1), "cannot be used"},
		{"multicast address", patched(16, 224, 0, 0, 1), "cannot be used"},
		{"broadcast address", patched(16, 255, 255, 255, 255), "cannot be used"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := dhcpParse(test.packet, &testQuery)
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("got %v, want %q", err, test.err)
			}
		})
	}
	if r, _ := dhcpParse(without(optMask), &testQuery); r.address.Bits() != 32 {
		t.Errorf("without a mask: got %v, want a single address", r.address)
	}
	if r, _ := dhcpParse(replaced(optLease, 255, 255, 255, 255), &testQuery); r.renewal != 0 {
		t.Errorf("infinite lease: renewed after %v", r.renewal)
	}
	if r, _ := dhcpParse(replaced(optLease, 0, 0, 0, 0), &testQuery); r.renewal != leastRenewal {
		t.Errorf("lease of no time: renewed after %v, want %v", r.renewal, leastRenewal)
	}
}

// replacedType makes the type option an unknown one.
func replacedType(b []byte) []byte {
	b[dhcpHeader+len(dhcpMagic)] = 200
	return b
}

func TestDHCPBuild(t *testing.T) {
	q := testQuery
	q.kind = dhcpRequest
	q.wanted, q.server = netip.MustParseAddr("10.0.2.15"), netip.MustParseAddr("10.0.2.2")
	b := dhcpBuild(&q)
	options, err := parseOptions(b[dhcpHeader+len(dhcpMagic):])
	if err != nil || len(b) != dhcpLeast || b[10] != 0x80 {
		t.Fatalf("%d bytes, flags %#x, %v", len(b), b[10], err)
	}
	for number, want := range map[byte]string{optType: "\x03", optAddress: "\x0a\x00\x02\x0f", optServer: "\x0a\x00\x02\x02", optHostname: "web"} {
		if string(options[number]) != want {
			t.Errorf("option %d: got %q, want %q", number, options[number], want)
		}
	}
	renew := dhcpBuild(&query{kind: dhcpRequest, current: q.wanted})
	if renew[10] != 0 || !bytes.Equal(renew[12:16], []byte{10, 0, 2, 15}) {
		t.Errorf("renewing: flags %#x, ciaddr %v", renew[10], renew[12:16])
	}
}

func FuzzDHCPParse(f *testing.F) {
	f.Add(serverReply(dhcpAck, usualOptions...))
	f.Add(serverReply(dhcpNak))
	f.Fuzz(func(t *testing.T, packet []byte) {
		r, err := dhcpParse(packet, &testQuery)
		if err != nil || r.kind == dhcpNak {
			return
		}
		if !r.address.IsValid() || !r.address.Addr().Is4() || !r.server.Is4() || r.address.Bits() < 1 {
			t.Errorf("unusable: %+v", r)
		}
		if r.renewal != 0 && r.renewal < leastRenewal {
			t.Errorf("renewed after %v", r.renewal)
		}
	})
}
