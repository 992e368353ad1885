// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/signer/rename"
)

// ErrNoLeaf says that a folder holds no leaf that Rotate could replace.
var ErrNoLeaf = errors.New("no leaf")

// ErrElsewhere says that a leaf's key is not in its folder.
var ErrElsewhere = errors.New("the old key is kept elsewhere, and there is no new public key")

// RotateOptions say how Rotate makes a new leaf.
type RotateOptions struct {
	Issuer     *Key             // that of the old leaf, from OpenIssuer
	Valid      time.Duration    // of the new leaf, from now on; 0: as long as the old one, and no longer than the issuer
	PublicKey  crypto.PublicKey // certified in place of a new key
	Passphrase []byte           // encrypts the new key; empty: it is not encrypted
}

// Rotation is what Rotate did.
type Rotation struct {
	Old, New *x509.Certificate
	Kept     string // the old certificate's file; its key is beside it
}

// Rotate replaces the leaf in a folder that Create made by a new one with the
// same name and profile, and a new key of the same algorithm. The old one stays,
// as signing-SERIAL.key, .crt and .pub. All is done in one step, or nothing. It waits, until ctx
// ends, for other rotations beside it.
func Rotate(ctx context.Context, dir string, o RotateOptions) (*Rotation, error) {
	return rotate(ctx, dir, o, time.Now())
}

func rotate(ctx context.Context, dir string, o RotateOptions, now time.Time) (*Rotation, error) {
	fail := func(err error) (*Rotation, error) { return nil, fmt.Errorf("rotating the leaf of %q: %w", dir, err) }
	old, err := leafOf(dir, o.Issuer)
	if err != nil {
		return fail(err)
	}
	issuer := o.Issuer.Chain[0]
	if o.Valid == 0 {
		o.Valid = min(old.NotAfter.Sub(old.NotBefore)-clockMargin, issuer.NotAfter.Sub(now))
	}
	leaf := &Key{}
	pub := o.PublicKey
	if pub == nil {
		if err := checkOldKey(dir, o.Passphrase); err != nil {
			return fail(err)
		}
		if leaf.Signer, err = generate(AlgorithmOf(old.PublicKey)); err != nil {
			return fail(err)
		}
		pub = leaf.Public()
	} else if cryptoutils.EqualKeys(pub, old.PublicKey) == nil {
		return fail(errors.New("the public key is the old one"))
	}
	made, err := issue(request{RawSubject: old.RawSubject, Profile: ProfileOf(old, issuer), Valid: o.Valid, Key: pub}, o.Issuer, now)
	if err != nil {
		return fail(err)
	}
	leaf.Chain = append([]*x509.Certificate{made}, o.Issuer.Chain...)
	files, err := encode("signing", leaf, o.Passphrase)
	if err != nil {
		return fail(err)
	}
	kept := fmt.Sprintf("signing-%x", old.SerialNumber)
	if err := exchangeDir(ctx, dir, kept, files); err != nil {
		return fail(err)
	}
	return &Rotation{Old: old, New: made, Kept: filepath.Join(dir, kept+".crt")}, nil
}

// leafOf returns the leaf of a folder, which the issuer has to have issued.
func leafOf(dir string, issuer *Key) (*x509.Certificate, error) {
	data, err := readFile(filepath.Join(dir, "signing.crt"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: signing.crt: %w", ErrNoLeaf, err)
	}
	if err != nil {
		return nil, fmt.Errorf("signing.crt: %w", err)
	}
	chain, err := ParseCertificates(data)
	if err != nil {
		return nil, fmt.Errorf("signing.crt: %w", err)
	}
	leaf := chain[0]
	switch {
	case leaf.IsCA:
		return nil, fmt.Errorf("%w: certificate %q of signing.crt is an authority's", ErrNoLeaf, Name(leaf.Subject))
	case leaf.CheckSignatureFrom(issuer.Chain[0]) != nil:
		return nil, fmt.Errorf("the issuer %q did not issue %q", Name(issuer.Chain[0].Subject), Name(leaf.Subject))
	}
	return leaf, nil
}

// checkOldKey says whether a new key in a file would be less safe than the old
// one.
func checkOldKey(dir string, passphrase []byte) error {
	data, err := readFile(filepath.Join(dir, "signing.key"))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrElsewhere
	}
	if err != nil {
		return fmt.Errorf("signing.key: %w", err)
	}
	if block, _ := pem.Decode(data); block != nil && IsEncrypted(block) && len(passphrase) == 0 {
		return fmt.Errorf("signing.key: %w for the new one", ErrEncrypted)
	}
	return nil
}

// exchangeDir puts new files into a directory in one step. The files signing.*
// that are there get the stem kept.
func exchangeDir(ctx context.Context, path, kept string, files []file) (err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	unlock, err := lockDir(ctx, filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	names, err := fileNames(path)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, name := range names {
		to := name
		if extension, ok := strings.CutPrefix(name, "signing."); ok {
			to = kept + "." + extension
		}
		err := os.Link(filepath.Join(path, name), filepath.Join(tmp, to))
		if errors.Is(err, fs.ErrExist) { // the leaf that was read is not the one that is there
			return errors.New("another rotation came first")
		}
		if err != nil {
			return err
		}
	}
	if err := writeFiles(tmp, files); err != nil {
		return err
	}
	if err := errors.Join(giveTo(tmp, info, files), os.Chmod(tmp, info.Mode().Perm()), syncDir(tmp)); err != nil {
		return err
	}
	if err := rename.Exchange(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// giveTo gives a directory and new files in it the owner that another directory
// has: root may rotate what is a service's.
func giveTo(dir string, like fs.FileInfo, files []file) error {
	owner := like.Sys().(*syscall.Stat_t)
	if int(owner.Uid) == os.Geteuid() && int(owner.Gid) == os.Getegid() {
		return nil
	}
	errs := []error{os.Lchown(dir, int(owner.Uid), int(owner.Gid))}
	for _, f := range files {
		errs = append(errs, os.Lchown(filepath.Join(dir, f.name), int(owner.Uid), int(owner.Gid)))
	}
	return errors.Join(errs...)
}

// lockDir keeps other rotations waiting.
func lockDir(ctx context.Context, path string) (unlock func() error, err error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := flock.Lock(ctx, d); err != nil {
		return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, d.Close())
	}
	return d.Close, nil
}

// fileNames lists a directory, in which no directory is expected.
func fileNames(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			return nil, fmt.Errorf("%q is a folder, which keys are not kept in", e.Name())
		}
		names = append(names, e.Name())
	}
	return names, nil
}
