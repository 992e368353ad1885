// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"crypto"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/youmark/pkcs8"

	"github.com/tenon-build/tenon/signer/rename"
)

// file is one file of a folder of keys.
type file struct {
	name string
	mode fs.FileMode
	data []byte
}

// encode writes a key, unless it is elsewhere, its certificates and, of a leaf,
// its public key.
func encode(stem string, key *Key, passphrase []byte) ([]file, error) {
	var files []file
	var errs []error
	add := func(extension string, mode fs.FileMode, data []byte, err error) {
		files, errs = append(files, file{stem + extension, mode, data}), append(errs, err)
	}
	if key.Signer != nil {
		data, err := encodePrivate(key.Signer, passphrase)
		add(".key", 0o600, data, err)
	}
	data, err := cryptoutils.MarshalCertificatesToPEM(key.Chain)
	add(".crt", 0o644, data, err)
	if !key.Chain[0].IsCA {
		data, err = cryptoutils.MarshalPublicKeyToPEM(key.Chain[0].PublicKey)
		add(".pub", 0o644, data, err)
	}
	return files, errors.Join(errs...)
}

// encodePrivate writes PKCS#8, encrypted if there is a passphrase as openssl
// can decrypt it.
func encodePrivate(key crypto.Signer, passphrase []byte) ([]byte, error) {
	if len(passphrase) == 0 {
		return cryptoutils.MarshalPrivateKeyToPEM(key)
	}
	der, err := pkcs8.MarshalPrivateKey(key, passphrase, &pkcs8.Opts{
		Cipher:  pkcs8.AES256CBC,
		KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 600_000, HMACHash: crypto.SHA256}, // as OWASP advises
	})
	return cryptoutils.PEMEncode("ENCRYPTED PRIVATE KEY", der), err
}

// writeDir makes the directory in one step.
func writeDir(path string, files []file) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := writeFiles(tmp, files); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), syncDir(tmp)); err != nil {
		return err
	}
	err = rename.NoReplace(tmp, path)
	if errors.Is(err, fs.ErrExist) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeFiles(dir string, files []file) error {
	for _, f := range files {
		if err := writeFile(filepath.Join(dir, f.name), f); err != nil {
			return err
		}
	}
	return nil
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
