// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/regular"
)

// maxFile is the size of the largest file that is looked into, in bytes.
const maxFile = 1 << 20

// finder collects what files hold.
type finder struct {
	passphrase   []byte
	certificates []*found
	keys         []Key
	problems     []string
}

// found is a certificate, the files that begin with it, and those that have it
// further down.
type found struct {
	certificate  *x509.Certificate
	first, later []string
}

func (c *found) files() []string { return append(slices.Clone(c.first), c.later...) }

func (f *finder) problem(path string, err error) {
	f.problems = append(f.problems, fmt.Sprintf("%s: %v", path, reason(err)))
}

// order is the place of a certificate in what was found.
func (f *finder) order(c *x509.Certificate) int {
	return slices.IndexFunc(f.certificates, func(other *found) bool { return other.certificate == c })
}

// add looks into one file.
func (f *finder) add(path string) {
	data, mode, err := read(path)
	if err != nil {
		f.problem(path, err)
		return
	}
	if c, err := x509.ParseCertificate(data); err == nil {
		f.addCertificate(path, c, 0)
		return
	}
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			f.addKey(path, block, mode)
		case block.Type == "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				f.problem(path, fmt.Errorf("certificate %d: %w", n+1, err))
			} else {
				f.addCertificate(path, c, n)
			}
			n++
		}
	}
}

// read reads a regular file; of a larger one than is looked into, nothing.
func read(path string) ([]byte, os.FileMode, error) {
	file, err := regular.Open(path)
	if err != nil {
		return nil, 0, regular.Cause(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, 0, err
	}
	if info.Size() > maxFile {
		return nil, info.Mode(), nil
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	return data, info.Mode(), err
}

// addCertificate notes a certificate that is the file's nth.
func (f *finder) addCertificate(path string, c *x509.Certificate, n int) {
	if err := signer.CheckCertificate(c); err != nil {
		f.problem(path, err)
		return
	}
	i := slices.IndexFunc(f.certificates, func(other *found) bool { return bytes.Equal(other.certificate.Raw, c.Raw) })
	if i < 0 {
		i = len(f.certificates)
		f.certificates = append(f.certificates, &found{certificate: c})
	}
	list := &f.certificates[i].later
	if n == 0 {
		list = &f.certificates[i].first
	}
	if !slices.Contains(f.certificates[i].files(), path) {
		*list = append(*list, path)
	}
}

func (f *finder) addKey(path string, block *pem.Block, mode os.FileMode) {
	k := Key{File: path, Problems: []string{}, Encrypted: signer.IsEncrypted(block)}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(pem.EncodeToMemory(block), cryptoutils.StaticPasswordFunc(f.passphrase))
	if s, ok := key.(crypto.Signer); ok && err == nil {
		k.Fingerprint, k.Algorithm = signer.Fingerprint(s.Public()), signer.AlgorithmOf(s.Public())
	} else if !k.Encrypted {
		k.Problems = append(k.Problems, "private key: cannot be read")
	}
	if mode.Perm()&0o077 != 0 {
		k.Problems = append(k.Problems, fmt.Sprintf("private key: its file is open to others (mode %04o)", mode.Perm()))
	}
	f.keys = append(f.keys, k)
}

// keyOf finds the private key of a certificate: by fingerprint or, where a key
// cannot be decrypted, by its name beside the certificate's file.
func (f *finder) keyOf(c *found) *Key {
	want := signer.Fingerprint(c.certificate.PublicKey)
	for i, k := range f.keys {
		if k.Fingerprint != "" && k.Fingerprint == want {
			return &f.keys[i]
		}
	}
	for i, k := range f.keys {
		if k.Encrypted && k.Fingerprint == "" && slices.ContainsFunc(c.first, func(file string) bool { return stem(file) == stem(k.File) }) {
			return &f.keys[i]
		}
	}
	return nil
}

func stem(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) }
