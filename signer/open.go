// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"golang.org/x/sys/unix"
)

// ErrReference says that a key reference has a scheme that this program does
// not know.
var ErrReference = errors.New("only file: is known")

// ErrNoCertificate says that no certificate was found for a key.
var ErrNoCertificate = errors.New("no certificate")

const (
	maxFile  = 1 << 20 // of a PEM file, in bytes
	maxChain = 10      // certificates
)

// Open opens the key that ref names: file:PATH or a path to a PEM file with a
// private key (PKCS#8 or PKCS#1). cert is the path of its PEM certificates, the
// leaf first, each followed by its issuer. When it is empty, the certificates
// are those in the key's own file, or else those in the file beside it that ends
// in .crt.
func Open(ref, cert string) (*Key, error) { return open(ref, cert, time.Now()) }

func open(ref, cert string, now time.Time) (*Key, error) {
	path, err := keyPath(ref)
	if err != nil {
		return nil, err
	}
	key, chain, err := readKey(path)
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", path, err)
	}
	certPath := path
	if cert != "" || len(chain) == 0 {
		if certPath, chain, err = readCertificates(path, cert); err != nil {
			return nil, err
		}
	}
	if err := check(key, chain, now); err != nil {
		return nil, fmt.Errorf("key %q: certificates of %q: %w", path, certPath, err)
	}
	return &Key{key, chain}, nil
}

// NewKey joins a private key, wherever it is, with its certificates, which are
// checked as those of Open.
func NewKey(key crypto.Signer, chain []*x509.Certificate) (*Key, error) {
	if err := check(key, chain, time.Now()); err != nil {
		return nil, err
	}
	return &Key{key, chain}, nil
}

// keyPath returns the path in a reference. What looks like a scheme is one: a
// path with a colon in its first element has to be given as file:PATH.
func keyPath(ref string) (string, error) {
	scheme := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`).FindString(ref)
	if scheme != "" && scheme != "file:" {
		return "", fmt.Errorf("key reference %q: %w", ref, ErrReference)
	}
	path := strings.TrimPrefix(ref, scheme)
	if path == "" {
		return "", fmt.Errorf("key reference %q: no path", ref)
	}
	return path, nil
}

// readKey reads the one private key of a file, and the certificates beside it.
func readKey(path string) (crypto.Signer, []*x509.Certificate, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	var keys, certs []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case isEncrypted(block):
			return nil, nil, errors.New("an encrypted private key is not supported yet")
		case strings.HasSuffix(block.Type, "PRIVATE KEY") && keys != nil:
			return nil, nil, errors.New("more than one private key")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			keys = pem.EncodeToMemory(block)
		case block.Type == "CERTIFICATE":
			certs = append(certs, pem.EncodeToMemory(block)...)
		}
	}
	if keys == nil {
		return nil, nil, errors.New("no private key in PEM form")
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(keys, cryptoutils.SkipPassword)
	if err != nil {
		return nil, nil, fmt.Errorf("private key: %w", err)
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("private key: %T cannot sign", private)
	}
	if _, err := CheckRSA(key.Public()); err != nil {
		return nil, nil, err
	}
	if certs == nil {
		return key, nil, nil
	}
	chain, err := ParseCertificates(certs)
	return key, chain, err
}

func isEncrypted(b *pem.Block) bool {
	return strings.HasPrefix(b.Type, "ENCRYPTED ") || b.Headers["DEK-Info"] != ""
}

// readCertificates reads cert, or else the file beside the key.
func readCertificates(key, cert string) (string, []*x509.Certificate, error) {
	path := cert
	if path == "" {
		path = strings.TrimSuffix(key, filepath.Ext(key)) + ".crt"
	}
	data, err := readFile(path)
	if cert == "" && errors.Is(err, os.ErrNotExist) {
		return "", nil, fmt.Errorf("key %q: %w: tried the key's own file and %q", key, ErrNoCertificate, path)
	}
	if err != nil {
		return "", nil, fmt.Errorf("certificate %q: %w", path, err)
	}
	chain, err := ParseCertificates(data)
	if err != nil {
		return "", nil, fmt.Errorf("certificate %q: %w", path, err)
	}
	return path, chain, nil
}

// ParseCertificates parses PEM certificates, with any text around them. It
// returns at least one, at most ten.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	var certs []byte // without the text that openssl writes around certificates
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			certs = append(certs, pem.EncodeToMemory(block)...)
		}
	}
	if certs == nil {
		return nil, fmt.Errorf("%w in PEM form", ErrNoCertificate)
	}
	chain, err := cryptoutils.UnmarshalCertificatesFromPEMLimited(certs, maxChain)
	if err != nil {
		return nil, err
	}
	for _, c := range chain {
		if err := CheckCertificate(c); err != nil {
			return nil, err
		}
	}
	return chain, nil
}

// check says what keeps the key from signing.
func check(key crypto.Signer, chain []*x509.Certificate, now time.Time) error {
	leaf := chain[0]
	if cryptoutils.EqualKeys(key.Public(), leaf.PublicKey) != nil {
		return fmt.Errorf("certificate %q, the first, does not belong to the key", Name(leaf.Subject))
	}
	if err := CheckUsage(leaf); err != nil {
		return err
	}
	for i, c := range chain {
		if err := CheckValidity(c, now); err != nil {
			return err
		}
		if i > 0 && chain[i-1].CheckSignatureFrom(c) != nil {
			return fmt.Errorf("certificate %q is not the issuer of %q, which it follows", Name(c.Subject), Name(chain[i-1].Subject))
		}
	}
	return nil
}

// CheckValidity says whether a certificate is valid at a time.
func CheckValidity(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return fmt.Errorf("certificate %q is not valid before %s", Name(c.Subject), c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return fmt.Errorf("certificate %q expired on %s", Name(c.Subject), c.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// readFile reads a regular file of limited size. Opening does not wait for the
// other end of a pipe.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Unwrap(err) // the path is in the caller's message
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(f, maxFile+1))
	if err == nil && n > maxFile {
		err = fmt.Errorf("larger than %d bytes", maxFile)
	}
	return slices.Clip(b.Bytes()), err
}
