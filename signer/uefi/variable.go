// SPDX-License-Identifier: Apache-2.0

package uefi

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/pkcs7"
)

// ErrVariable says that a variable is not one that holds signature lists.
var ErrVariable = errors.New("unknown variable")

// ErrPlatformKey says that an authority is no platform key. Firmware would take it
// from one of its leaves, and refuse all that this leaf signs later: updates of
// KEK and PK have to be signed by the certificate in PK itself (seen in OVMF).
var ErrPlatformKey = errors.New("PK holds the certificate that signs updates itself, not its authority's")

// Variables are the names that Lists and Sign take.
func Variables() []string { return []string{"db", "dbx", "KEK", "PK"} }

// vendor returns the GUID that a variable's name belongs to.
func vendor(variable string) (string, error) {
	switch {
	case variable == "db" || variable == "dbx":
		return imageSecurity, nil
	case slices.Contains(Variables(), variable):
		return globalVariable, nil
	}
	return "", fmt.Errorf("%w %q: have %s", ErrVariable, variable, strings.Join(Variables(), ", "))
}

// Lists are the signature lists that put a certificate into a variable. In dbx,
// that revokes it.
func Lists(variable string, c *x509.Certificate) ([]byte, error) {
	if _, err := vendor(variable); err != nil {
		return nil, err
	}
	if variable == "PK" && c.IsCA {
		return nil, fmt.Errorf("certificate %q: %w", signer.Name(c.Subject), ErrPlatformKey)
	}
	if variable == "dbx" {
		return append(Certificate(c), Revocation(c)...), nil
	}
	return Certificate(c), nil
}

// Attributes of a variable (UEFI 2.10, 8.2): kept over a reset, for the boot
// loader and the system, and only ever written with a newer signed time.
const (
	attributes  = 0x01 | 0x02 | 0x04 | 0x20 // NON_VOLATILE, BOOTSERVICE_ACCESS, RUNTIME_ACCESS, TIME_BASED_AUTHENTICATED_WRITE_ACCESS
	appendWrite = 0x40                      // APPEND_WRITE
)

// Update is a new value of a variable.
type Update struct {
	Variable string
	Lists    []byte
	Time     time.Time // firmware refuses one that is not after that of the last update
	Append   bool      // to what the variable holds, in place of replacing it
}

// Sign returns the update, signed: the EFI_VARIABLE_AUTHENTICATION_2, then the
// lists.
func Sign(key *signer.Key, u Update) ([]byte, error) {
	guidText, err := vendor(u.Variable)
	if err != nil {
		return nil, err
	}
	fail := func(err error) ([]byte, error) {
		return nil, fmt.Errorf("signing the update of %s: %w", u.Variable, err)
	}
	if _, ok := key.Public().(*rsa.PublicKey); !ok {
		return fail(fmt.Errorf("firmware takes RSA alone, not %s", signer.AlgorithmOf(key.Public())))
	}
	stamp, err := efiTime(u.Time)
	if err != nil {
		return fail(err)
	}
	// UEFI 2.10, 8.2.2: the digest is of name, GUID, attributes, time and value.
	var message []byte
	for _, unit := range utf16.Encode([]rune(u.Variable)) { // without a NUL
		message = binary.LittleEndian.AppendUint16(message, unit)
	}
	id, attrs := parseGUID(guidText), uint32(attributes)
	if u.Append {
		attrs |= appendWrite
	}
	message = append(message, id[:]...)
	message = binary.LittleEndian.AppendUint32(message, attrs)
	message = append(message, stamp...)
	message = append(message, u.Lists...)
	p7, err := pkcs7.SignDetached(key, message)
	if err != nil {
		return fail(err)
	}
	data, err := signedData(p7)
	if err != nil {
		return fail(err)
	}
	kind := parseGUID(certPKCS7)
	b := append([]byte{}, stamp...)
	b = binary.LittleEndian.AppendUint32(b, uint32(8+len(kind)+len(data))) // WIN_CERTIFICATE.dwLength
	b = binary.LittleEndian.AppendUint16(b, 0x0200)                        // wRevision
	b = binary.LittleEndian.AppendUint16(b, 0x0ef1)                        // wCertificateType: WIN_CERT_TYPE_EFI_GUID
	b = append(b, kind[:]...)
	b = append(b, data...)
	return append(b, u.Lists...), nil
}

// signedData is a PKCS#7 message without its ContentInfo, which older firmware
// does not take.
func signedData(p7 []byte) ([]byte, error) {
	var info struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue // [0]
	}
	_, err := asn1.Unmarshal(p7, &info)
	return info.Content.Bytes, err
}

// efiTime is an EFI_TIME (UEFI 2.10, 8.3) in UTC, to the second, as 8.2.2 wants
// it.
func efiTime(t time.Time) ([]byte, error) {
	t = t.UTC()
	if t.Year() < 1900 || t.Year() > 9999 {
		return nil, fmt.Errorf("the year %d is not within 1900 to 9999", t.Year())
	}
	b := binary.LittleEndian.AppendUint16(nil, uint16(t.Year()))
	b = append(b, byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()))
	return append(b, make([]byte, 9)...), nil // Pad1, Nanosecond, TimeZone, Daylight and Pad2 are zero
}
