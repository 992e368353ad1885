// SPDX-License-Identifier: Apache-2.0

package uefi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/internal/testkey"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// The bytes as Linux has them in include/linux/efi.h.
func TestGUID(t *testing.T) {
	g := parseGUID(certX509)
	if got := hex.EncodeToString(g[:]); got != "a159c0a5e494a74a87b5ab155c2bf072" {
		t.Errorf("got %s", got)
	}
}

func TestLists(t *testing.T) {
	chain := testkey.NewAuthority(t).Key(t, nil).Chain
	c := chain[0]
	sum := sha256.Sum256(c.RawTBSCertificate)
	for _, test := range []struct {
		variable string
		want     [][]byte // data of each list, after the owner
	}{
		{"db", [][]byte{c.Raw}},
		{"KEK", [][]byte{c.Raw}},
		{"PK", [][]byte{c.Raw}},
		{"dbx", [][]byte{c.Raw, append(sum[:], make([]byte, 16)...)}},
	} {
		b, err := Lists(test.variable, c)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range test.want {
			size := binary.LittleEndian.Uint32(b[16:])
			if binary.LittleEndian.Uint32(b[20:]) != 0 || binary.LittleEndian.Uint32(b[24:]) != size-28 || !bytes.Equal(b[44:size], want) {
				t.Errorf("%s: list %d is %x", test.variable, i, b)
			}
			b = b[size:]
		}
		if len(b) > 0 {
			t.Errorf("%s: %x is left", test.variable, b)
		}
	}
	if _, err := Lists("PK", chain[1]); !errors.Is(err, ErrPlatformKey) {
		t.Errorf("got %v", err)
	}
	if _, err := Lists("dbt", c); !errors.Is(err, ErrVariable) {
		t.Errorf("got %v", err)
	}
}

func TestSign(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	at := time.Date(2026, 2, 3, 4, 5, 6, 7, time.FixedZone("", -3600))
	for _, u := range []Update{
		{Variable: "db", Lists: []byte("lists"), Time: at},
		{Variable: "KEK", Lists: []byte("lists"), Time: at, Append: true},
	} {
		b, err := Sign(key, u)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(b[:16]); got != "ea070203050506000000000000000000" {
			t.Errorf("the time is %s", got)
		}
		size := binary.LittleEndian.Uint32(b[16:])
		if string(b[16+size:]) != "lists" || hex.EncodeToString(b[20:24]) != "0002f10e" {
			t.Errorf("got %x", b)
		}
		// By hand, from the specification.
		message := map[string]string{
			"db":  "64006200" + "cbb219d73a3d9645a3bcdad00e67656f" + "27000000",
			"KEK": "4b0045004b00" + "61dfe48bca93d211aa0d00e098032b8c" + "67000000",
		}[u.Variable] + "ea070203050506000000000000000000" + hex.EncodeToString([]byte("lists"))
		signed, err := hex.DecodeString(message)
		if err != nil {
			t.Fatal(err)
		}
		data := asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: b[40 : 16+size]}
		p7, err := asn1.Marshal(struct {
			Type    asn1.ObjectIdentifier
			Content asn1.RawValue
		}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}, data})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pkcs7.VerifyDetached(p7, signed); err != nil {
			t.Error(err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	key := testkey.NewAuthority(t).Key(t, nil)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, do := range map[string]func() ([]byte, error){
		`unknown variable "dbr"`: func() ([]byte, error) { return Sign(key, Update{Variable: "dbr", Time: time.Now()}) },
		"the year 1":             func() ([]byte, error) { return Sign(key, Update{Variable: "db"}) },
		"firmware takes RSA alone, not ecdsa-p256": func() ([]byte, error) {
			return Sign(&signer.Key{Signer: ec, Chain: key.Chain}, Update{Variable: "db", Time: time.Now()})
		},
	} {
		if _, err := do(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
