// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/trust"
)

// ErrChoose says that several signed a bundle, and a kernel looks at one
// signature alone.
var ErrChoose = errors.New("several signed it, and kernels check the first signature alone")

// Export is a bundle that is to be written in forms that others boot.
type Export struct {
	bundle *bundle.Bundle
	kernel *loader.Kernel
	first  string // fingerprint of the key whose signatures are wanted; empty: it is not signed
	valid  []loader.Signature
}

// OpenExport reads the kernel and chooses the signatures: those of the signer
// that who trusts, or, when who is nil, of the only one. A bundle that nobody
// signed is refused with loader.ErrUnsigned, unless allowUnsigned is set.
func OpenExport(ctx context.Context, b *bundle.Bundle, who *trust.Identity, allowUnsigned bool) (*Export, error) {
	e := &Export{bundle: b}
	if err := e.open(ctx, who, allowUnsigned); err != nil {
		return nil, errors.Join(fmt.Errorf("exporting bundle %q: %w", b.Manifest.Name, err), e.Close())
	}
	return e, nil
}

// Close frees the kernel's memory.
func (e *Export) Close() error {
	if e.kernel == nil {
		return nil
	}
	return e.kernel.Close()
}

func (e *Export) open(ctx context.Context, who *trust.Identity, allowUnsigned bool) (err error) {
	if e.kernel, err = loader.OpenKernel(ctx, e.bundle); err != nil {
		return err
	}
	if e.kernel.Err != nil {
		return e.kernel.Err
	}
	signatures, err := loader.Signatures(ctx, e.bundle, e.kernel)
	if err != nil {
		return err
	}
	var refused error
	signers := map[string]bool{}
	for _, s := range signatures {
		if s.Kind.Type != bundle.AuthenticodeType || s.Err != nil {
			refused = errors.Join(refused, s.Err)
			continue
		}
		if who != nil {
			if err := who.Trusts(s.Signer, time.Now()); err != nil {
				refused = errors.Join(refused, err)
				continue
			}
		}
		e.first = signer.Fingerprint(s.Signer.Key)
		signers[e.first] = true
	}
	for _, s := range signatures {
		if s.Err == nil {
			e.valid = append(e.valid, s)
		}
	}
	switch {
	case len(signers) == 1, len(signatures) == 0 && allowUnsigned && who == nil:
		return nil
	case len(signers) > 1:
		return ErrChoose
	case len(signatures) == 0:
		return loader.ErrUnsigned
	}
	return fmt.Errorf("no signature over its kernel will do: %w", refused)
}

// Kernel writes the bzImage to a file, which is replaced: the chosen signature
// first, then those of others.
func (e *Export) Kernel(path string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.RemoveAll(f.Name())) }()
	if err := errors.Join(e.writeKernel(f), f.Chmod(0o644), f.Sync()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (e *Export) writeKernel(w io.Writer) error {
	var first, others [][]byte
	for _, s := range e.valid {
		if s.Kind.Type != bundle.AuthenticodeType {
			continue
		}
		if signer.Fingerprint(s.Signer.Key) == e.first {
			first = append(first, s.Data)
		} else {
			others = append(others, s.Data)
		}
	}
	return e.kernel.Image.Attach(w, append(first, others...)...)
}

// Dir writes everything to a new directory: the signed bzImage, a detached
// initramfs, the command line, what describes the bundle, and the other
// signatures of the chosen signer with what they are over.
func (e *Export) Dir(ctx context.Context, dir string) (err error) {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := e.fill(ctx, tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: tmp, New: dir, Err: err}
	}
	return nil
}

func (e *Export) fill(ctx context.Context, dir string) error {
	put := func(name string, write func(io.Writer) error) error {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Sync(), f.Close())
	}
	layer := func(mt types.MediaType) func(io.Writer) error {
		return func(w io.Writer) error { return e.bundle.CopyLayer(ctx, w, mt) }
	}
	data := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error { _, err := w.Write(b); return err }
	}
	manifest, err := json.MarshalIndent(e.bundle.Manifest, "", "  ")
	if err != nil {
		return err
	}
	err = errors.Join(
		put("bzImage", e.writeKernel),
		put("config", layer(bundle.ConfigType)),
		put("System.map", layer(bundle.SystemMapType)),
		put("fidelity.json", layer(bundle.FidelityType)),
		put("manifest.json", data(append(manifest, '\n'))),
		put("cmdline", data([]byte(e.bundle.Manifest.CommandLine+"\n"))),
	)
	if err == nil && !e.bundle.Manifest.Initramfs.Sealed {
		err = put("initramfs.cpio.zst", layer(bundle.InitramfsType))
	}
	for _, s := range e.valid {
		if err != nil || signer.Fingerprint(s.Signer.Key) != e.first {
			continue
		}
		switch s.Kind.Type {
		case bundle.StatementType:
			var st []byte
			if st, err = loader.Statement(e.bundle).Marshal(); err == nil {
				err = errors.Join(put("statement", data(st)), put("statement.p7s", data(s.Data)))
			}
		case bundle.SigstoreType:
			err = put("sigstore.json", data(bytes.Clone(s.Data)))
		}
	}
	return err
}
