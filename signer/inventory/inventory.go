// SPDX-License-Identifier: Apache-2.0

// Package inventory finds the certificates and keys in folders, and says what
// each is, until when, and what is wrong with it.
//
// In: paths, the time, and a passphrase where keys are encrypted. Out: one entry
// for each certificate, however many files hold it, and one for each key without
// a certificate. Nothing is refused but paths that cannot be read: what is no key
// and no certificate is passed over, and what only looks like one is listed with
// its problem. Private keys are read for their public half, and forgotten.
package inventory

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tenon-build/tenon/signer"
)

// Inventory is what was found. Its JSON form is for programs: names stay.
type Inventory struct {
	Certificates []Certificate `json:"certificates"` // what expires first comes first
	Keys         []Key         `json:"keys"`         // those without a certificate
	Problems     []string      `json:"problems"`     // with files that are neither
}

// Certificate is one certificate and its key.
type Certificate struct {
	Subject            string    `json:"subject"`
	Profile            string    `json:"profile"` // as its extensions have it
	Serial             string    `json:"serial"`  // hex
	Fingerprint        string    `json:"fingerprint"`
	TBS                string    `json:"tbs"` // as the kernel's blacklist names it
	Issuer             string    `json:"issuer"`
	Algorithm          string    `json:"algorithm"`
	SignatureAlgorithm string    `json:"signatureAlgorithm"`
	NotBefore          time.Time `json:"notBefore"`
	NotAfter           time.Time `json:"notAfter"`
	DaysLeft           int       `json:"daysLeft"` // whole days; negative after the end
	Files              []string  `json:"files"`    // that hold it, those first that are about it
	Key                *Key      `json:"key"`      // null: it is not here
	Problems           []string  `json:"problems"`

	X509 *x509.Certificate `json:"-"`
}

// Key is a private key in a file.
type Key struct {
	File        string   `json:"file"`
	Encrypted   bool     `json:"encrypted"`
	Fingerprint string   `json:"fingerprint,omitempty"` // empty: encrypted, and no passphrase fits
	Algorithm   string   `json:"algorithm,omitempty"`
	Problems    []string `json:"problems"`
}

// Scan lists what is in files, and in folders and the folders below them.
func Scan(paths []string, passphrase []byte, now time.Time) (*Inventory, error) {
	f := finder{passphrase: passphrase}
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			switch {
			case err != nil && name == path:
				return err
			case err != nil:
				f.problem(name, err)
				return nil
			case d.Type().IsRegular() || name == path && !d.IsDir():
				f.add(name)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("listing %q: %w", path, reason(err))
		}
	}
	return f.inventory(now), nil
}

// Look lists one certificate, with its key and its issuers, or one key: that of a
// file, or of a folder that signer.Create made. Of a folder with a leaf and a CA
// it is the leaf's.
func Look(path string, passphrase []byte, now time.Time) (*Inventory, error) {
	fail := func(err error) (*Inventory, error) { return nil, fmt.Errorf("reading %q: %w", path, reason(err)) }
	info, err := os.Stat(path)
	if err != nil {
		return fail(err)
	}
	file := path
	if info.IsDir() {
		if file, err = certificateIn(path); err != nil {
			return fail(err)
		}
	}
	f := finder{passphrase: passphrase}
	if f.add(file); len(f.problems) > 0 {
		return fail(errors.New(strings.TrimPrefix(f.problems[0], file+": ")))
	}
	if len(f.certificates) == 0 && len(f.keys) == 0 {
		return fail(errors.New("no certificate and no private key"))
	}
	for _, beside := range []string{stem(file) + ".crt", stem(file) + ".key"} {
		if _, err := os.Stat(beside); err == nil && beside != file {
			f.add(beside)
		}
	}
	i := f.inventory(now)
	// What was asked for comes first: the first of the file, or the key's.
	slices.SortStableFunc(i.Certificates, func(a, b Certificate) int { return cmp.Compare(f.order(a.X509), f.order(b.X509)) })
	return i, nil
}

func certificateIn(dir string) (string, error) {
	for _, name := range []string{"signing.crt", "ca.crt"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return path, err
		}
	}
	return "", errors.New("the folder has neither signing.crt nor ca.crt")
}

// reason leaves out the path, which the message has already.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Within keeps what expires until then, or has expired.
func (i *Inventory) Within(end time.Time) {
	i.Certificates = slices.DeleteFunc(i.Certificates, func(c Certificate) bool { return c.NotAfter.After(end) })
}

// inventory describes what was found.
func (f *finder) inventory(now time.Time) *Inventory {
	i := &Inventory{Certificates: []Certificate{}, Keys: []Key{}, Problems: append([]string{}, f.problems...)}
	taken := map[string]bool{}
	for _, c := range f.certificates {
		out := f.describe(c, now)
		if out.Key != nil {
			taken[out.Key.File] = true
		}
		i.Certificates = append(i.Certificates, out)
	}
	for _, k := range f.keys {
		if !taken[k.File] {
			i.Keys = append(i.Keys, k)
		}
	}
	slices.SortStableFunc(i.Certificates, func(a, b Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return i
}

func (f *finder) describe(found *found, now time.Time) Certificate {
	c := found.certificate
	tbs, _ := signer.TBS(c) // where there is none, the profile's check says why
	out := Certificate{
		Subject: signer.Name(c.Subject), Serial: fmt.Sprintf("%x", c.SerialNumber), Issuer: signer.Name(c.Issuer),
		Fingerprint: signer.Fingerprint(c.PublicKey), TBS: tbs,
		Algorithm: signer.AlgorithmOf(c.PublicKey), SignatureAlgorithm: c.SignatureAlgorithm.String(),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), DaysLeft: int(math.Floor(c.NotAfter.Sub(now).Hours() / 24)),
		Files: found.files(), Key: f.keyOf(found), Problems: []string{}, X509: c,
	}
	issuer := f.issuerOf(c)
	p := signer.ProfileOf(c, issuer)
	out.Profile = p.Name
	if err := signer.CheckValidity(c, now); err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	out.Problems = append(out.Problems, p.Check(c)...)
	if issuer != nil {
		out.Problems = append(out.Problems, signer.CheckIssuer(c, issuer)...)
	}
	for _, other := range f.certificates {
		if other != found && bytes.Equal(other.certificate.RawIssuer, c.RawIssuer) && other.certificate.SerialNumber.Cmp(c.SerialNumber) == 0 {
			out.Problems = append(out.Problems, "serial number: its issuer gave it twice")
			break
		}
	}
	if out.Key != nil {
		out.Problems = append(out.Problems, out.Key.Problems...)
	}
	return out
}

// issuerOf finds the certificate that issued c, by name; of several, one that did
// sign it.
func (f *finder) issuerOf(c *x509.Certificate) (issuer *x509.Certificate) {
	for _, other := range f.certificates {
		if !bytes.Equal(other.certificate.RawSubject, c.RawIssuer) {
			continue
		}
		if issuer = other.certificate; c.CheckSignatureFrom(issuer) == nil {
			return issuer
		}
	}
	return issuer
}
