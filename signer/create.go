// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"golang.org/x/sys/unix"
)

// ErrExists says that something is where Create would write.
var ErrExists = errors.New("exists")

// CreateOptions say what Create makes.
type CreateOptions struct {
	Name  string        // the certificates' common names are "NAME CA" and "NAME signing"
	Valid time.Duration // of both certificates, from now on
}

// keyBits is within what a stock kernel takes, and NIST's choice beyond 2030.
const keyBits = 3072

// Create makes a development CA and a leaf for signing code, RSA-3072 with
// SHA-256, in a new directory: ca.key, ca.crt, signing.key, signing.crt (the leaf,
// then the CA) and signing.pub. Keys are PKCS#8, not encrypted, and readable by
// their owner alone. What exists at dir is refused with ErrExists. When it fails,
// nothing is there.
func Create(dir string, o CreateOptions) error { return create(dir, o, keyBits, time.Now()) }

func create(dir string, o CreateOptions, bits int, now time.Time) error {
	if err := o.check(); err != nil {
		return fmt.Errorf("creating keys %q: %w", dir, err)
	}
	// Early, as making keys takes a second; the rename decides.
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("creating keys %q: %w", dir, ErrExists)
	}
	files, err := o.files(bits, now)
	if err != nil {
		return fmt.Errorf("creating keys %q: %w", dir, err)
	}
	if err := writeDir(filepath.Clean(dir), files); err != nil {
		return fmt.Errorf("creating keys %q: %w", dir, err)
	}
	return nil
}

func (o CreateOptions) check() error {
	for _, r := range o.Name {
		if r < ' ' || r > '~' {
			return fmt.Errorf("name %q: only printable ASCII", o.Name)
		}
	}
	switch {
	case o.Name == "" || len(o.Name) > 48: // a common name has at most 64 characters
		return fmt.Errorf("name %q: needs 1 to 48 characters", o.Name)
	case o.Valid < time.Minute:
		return fmt.Errorf("validity of %s: less than a minute", o.Valid)
	}
	return nil
}

// file is one file of the new directory.
type file struct {
	name string
	mode fs.FileMode
	data []byte
}

func (o CreateOptions) files(bits int, now time.Time) ([]file, error) {
	caKey, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, err
	}
	ca, err := issue(o.template("CA", now, authority), nil, caKey, caKey)
	if err != nil {
		return nil, err
	}
	leaf, err := issue(o.template("signing", now, codeSigning), ca, key, caKey)
	if err != nil {
		return nil, err
	}
	return encode(caKey, key, ca, leaf)
}

func (o CreateOptions) template(role string, now time.Time, profile func(*x509.Certificate)) *x509.Certificate {
	now = now.UTC().Truncate(time.Second)
	c := &x509.Certificate{
		Subject:            pkix.Name{CommonName: o.Name + " " + role},
		NotBefore:          now.Add(-5 * time.Minute), // for hosts whose clock is behind
		NotAfter:           now.Add(o.Valid),
		SignatureAlgorithm: x509.SHA256WithRSA,
	}
	profile(c)
	return c
}

// authority issues leaves and nothing that issues in turn.
func authority(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	c.BasicConstraintsValid, c.IsCA, c.MaxPathLenZero = true, true, true
}

func codeSigning(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	c.BasicConstraintsValid = true
}

// issue signs a certificate for key; without parent it signs itself.
func issue(c, parent *x509.Certificate, key, issuer *rsa.PrivateKey) (*x509.Certificate, error) {
	var err error
	if c.SubjectKeyId, err = cryptoutils.SKID(key.Public()); err != nil {
		return nil, err
	}
	if c.SerialNumber, err = serial(); err != nil {
		return nil, err
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), issuer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// serial is positive and has exactly 128 bits, so that its length tells nothing.
func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.SetBit(n, 127, 1), nil
}

func encode(caKey, key *rsa.PrivateKey, ca, leaf *x509.Certificate) ([]file, error) {
	var files []file
	var errs []error
	add := func(name string, mode fs.FileMode, data []byte, err error) {
		files, errs = append(files, file{name, mode, data}), append(errs, err)
	}
	data, err := cryptoutils.MarshalPrivateKeyToPEM(caKey)
	add("ca.key", 0o600, data, err)
	data, err = cryptoutils.MarshalCertificateToPEM(ca)
	add("ca.crt", 0o644, data, err)
	data, err = cryptoutils.MarshalPrivateKeyToPEM(key)
	add("signing.key", 0o600, data, err)
	data, err = cryptoutils.MarshalCertificatesToPEM([]*x509.Certificate{leaf, ca})
	add("signing.crt", 0o644, data, err)
	data, err = cryptoutils.MarshalPublicKeyToPEM(key.Public())
	add("signing.pub", 0o644, data, err)
	return files, errors.Join(errs...)
}

// writeDir makes the directory in one step.
func writeDir(path string, files []file) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, f := range files {
		if err := writeFile(filepath.Join(tmp, f.name), f); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), syncDir(tmp)); err != nil {
		return err
	}
	err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		return ErrExists
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: path, Err: err}
	}
	return syncDir(filepath.Dir(path))
}

func writeFile(path string, file file) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, file.mode)
	if err != nil {
		return err
	}
	_, err = f.Write(file.data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
