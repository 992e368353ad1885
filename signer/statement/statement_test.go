// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

var example = Statement{Target: "cokernel", Sealed: true, Size: 0x123456, Digest: [32]byte{1, 31: 2}}

// The layout is what mortise.ko reads: it changes with the version alone.
func TestLayout(t *testing.T) {
	want := "54454e4f4e53544d" + "01000000" + "01000000" + "636f6b65726e656c0000000000000000" + "5634120000000000" +
		"01" + strings.Repeat("00", 30) + "02"
	got, err := example.Marshal()
	if err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got %x, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for name, s := range map[string]Statement{
		"no target":    {Size: 8},
		"long target":  {Target: "0123456789abcdef", Size: 8},
		"upper case":   {Target: "Qemu", Size: 8},
		"NUL":          {Target: "qe\x00mu", Size: 8},
		"no size":      {Target: "qemu"},
		"negative":     {Target: "qemu", Size: -8},
		"not in ASCII": {Target: "qemü", Size: 8},
	} {
		if _, err := s.Marshal(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSignAndVerify(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	p7, err := Sign(key, example)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Verify(p7, example)
	if err != nil || !s.Chain[0].Equal(key.Chain[0]) {
		t.Errorf("got %v", err)
	}
	for name, edit := range map[string]func(*Statement){
		"target": func(s *Statement) { s.Target = "kexec" },
		"sealed": func(s *Statement) { s.Sealed = false },
		"size":   func(s *Statement) { s.Size++ },
		"digest": func(s *Statement) { s.Digest[5]++ },
	} {
		other := example
		edit(&other)
		if _, err := Verify(p7, other); !errors.Is(err, pkcs7.ErrInvalid) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}
