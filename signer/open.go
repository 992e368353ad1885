// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer/pkcs11uri"
	"github.com/tenon-build/tenon/signer/regular"
)

// ErrReference says that a key reference has a scheme that this program does
// not know.
var ErrReference = errors.New("only file:, pkcs11: and NAME:// are known")

// ErrNoCertificate says that no certificate was found for a key.
var ErrNoCertificate = errors.New("no certificate")

// ErrEncrypted says that a private key is encrypted and no passphrase was given.
var ErrEncrypted = errors.New("the private key is encrypted, and there is no passphrase")

const (
	maxFile  = 1 << 20 // of a PEM file, in bytes
	maxChain = 10      // certificates
)

// OpenOptions say what a key reference does not.
type OpenOptions struct {
	// Certificates is the path of the key's PEM certificates, the leaf first, each
	// followed by its issuer. When it is empty, the certificates are those in the
	// key's own file, or else those in the file beside it that ends in .crt.
	Certificates string
	// Secret asks for a passphrase or a PIN, at most once for a key: what is wanted
	// begins with Passphrase or PIN. It may be nil, and so may an answer.
	Secret func(what string) ([]byte, error)
}

// What Secret is asked for.
const (
	Passphrase = "passphrase"
	PIN        = "PIN"
)

// Open opens the key that ref names:
//
//	PATH, file:PATH  a PEM file with a private key: PKCS#8, PKCS#1 or SEC 1,
//	                 encrypted or not, also cosign's
//	pkcs11:...       a key in a token (RFC 7512), by the plug-in sigstore-kms-pkcs11
//	NAME://ID        a key that the plug-in sigstore-kms-NAME reaches
//
// A plug-in runs until the context ends.
func Open(ctx context.Context, ref string, o OpenOptions) (*Key, error) {
	return open(ctx, ref, o, time.Now())
}

func open(ctx context.Context, ref string, o OpenOptions, now time.Time) (*Key, error) {
	key, from, err := load(ctx, ref, o)
	if err != nil {
		return nil, err
	}
	if err := check(key, key.Chain, now); err != nil {
		return nil, fmt.Errorf("key %q: certificates of %q: %w", ref, from, err)
	}
	return key, nil
}

// NewKey joins a private key, wherever it is, with its certificates, which are
// checked as those of Open.
func NewKey(key crypto.Signer, chain []*x509.Certificate) (*Key, error) {
	if err := check(key, chain, time.Now()); err != nil {
		return nil, err
	}
	return &Key{key, chain}, nil
}

// load opens a key and reads its certificates, which are not judged. from is the
// path that those are from. What looks like a scheme is one: a path with a colon
// in its first element has to be given as file:PATH.
func load(ctx context.Context, ref string, o OpenOptions) (key *Key, from string, err error) {
	if strings.Contains(strings.ToLower(ref), "pin-value") {
		return nil, "", fmt.Errorf("key reference: %w", pkcs11uri.ErrPIN) // and so it is not shown
	}
	scheme := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:`).FindString(ref)
	rest := ref[len(scheme):]
	scheme = strings.ToLower(scheme) // RFC 3986, 3.1
	id, store := strings.CutPrefix(rest, "//")
	switch {
	case scheme == "" || scheme == "file:":
		return readFiles(rest, o)
	case scheme != "pkcs11:" && !store:
		return nil, "", fmt.Errorf("key reference %q: %w", ref, ErrReference)
	case scheme == "pkcs11:":
		if _, err := pkcs11uri.Parse(rest); err != nil { // not shown: it may hold a PIN
			return nil, "", fmt.Errorf("key reference pkcs11: %w", err)
		}
	}
	key = &Key{}
	if o.Certificates == "" {
		return nil, "", fmt.Errorf("key %q: %w: it is not beside such a key", ref, ErrNoCertificate)
	}
	if from, key.Chain, err = readCertificates(ref, o.Certificates); err != nil {
		return nil, "", err
	}
	if scheme == "pkcs11:" {
		key.Signer, err = openToken(ctx, ref, o)
	} else {
		key.Signer, err = openPlugin(ctx, strings.TrimSuffix(scheme, ":"), id)
	}
	if err == nil {
		err = CheckKey(key.Public())
	}
	if err != nil {
		return nil, "", fmt.Errorf("key %q: %w", ref, err)
	}
	return key, from, nil
}

// readFiles reads the key in a file, and its certificates.
func readFiles(path string, o OpenOptions) (key *Key, from string, err error) {
	if path == "" {
		return nil, "", errors.New("key reference: no path")
	}
	key, from = &Key{}, path
	if key.Signer, key.Chain, err = readKey(path, o.Secret); err != nil {
		return nil, "", fmt.Errorf("key %q: %w", path, err)
	}
	if o.Certificates != "" || len(key.Chain) == 0 {
		from, key.Chain, err = readCertificates(path, o.Certificates)
	}
	return key, from, err
}

// readKey reads the one private key of a file, and the certificates beside it.
func readKey(path string, secret func(string) ([]byte, error)) (crypto.Signer, []*x509.Certificate, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, nil, err
	}
	var private *pem.Block
	var certs []byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY") && private != nil:
			return nil, nil, errors.New("more than one private key")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			private = block
		case block.Type == "CERTIFICATE":
			certs = append(certs, pem.EncodeToMemory(block)...)
		}
	}
	if private == nil {
		return nil, nil, errors.New("no private key in PEM form")
	}
	key, err := parsePrivate(private, func() ([]byte, error) {
		if secret == nil {
			return nil, nil
		}
		return secret(fmt.Sprintf("%s of %q", Passphrase, path))
	})
	if err != nil {
		return nil, nil, err
	}
	if certs == nil {
		return key, nil, nil
	}
	chain, err := ParseCertificates(certs)
	return key, chain, err
}

// parsePrivate reads a private key, of which passphrase is asked if it is
// encrypted.
func parsePrivate(block *pem.Block, passphrase func() ([]byte, error)) (crypto.Signer, error) {
	var secret []byte
	if IsEncrypted(block) {
		var err error
		if secret, err = passphrase(); err != nil {
			return nil, err
		}
		if len(secret) == 0 {
			return nil, ErrEncrypted
		}
	}
	private, err := cryptoutils.UnmarshalPEMToPrivateKey(pem.EncodeToMemory(block), cryptoutils.StaticPasswordFunc(secret))
	switch {
	case err != nil && secret != nil:
		return nil, fmt.Errorf("the passphrase does not decrypt the private key: %w", err)
	case err != nil:
		return nil, fmt.Errorf("private key: %w", err)
	}
	key, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: %T cannot sign", private)
	}
	if ec, ok := key.(*ecdsa.PrivateKey); ok {
		key = steady{ec}
	}
	return key, CheckKey(key.Public())
}

// steady is an ECDSA key that makes the same signature each time (RFC 6979).
type steady struct{ *ecdsa.PrivateKey }

func (k steady) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.PrivateKey.Sign(nil, digest, opts)
}

// IsEncrypted says whether a PEM block is a private key that takes a passphrase.
func IsEncrypted(b *pem.Block) bool {
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

// readFile reads a regular file of limited size. Errors do not name it.
func readFile(path string) ([]byte, error) {
	data, err := regular.Read(path, maxFile)
	return data, regular.Cause(err)
}
