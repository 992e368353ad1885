// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/builder/uki"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/rename"
	"github.com/tenon-build/tenon/signer/trust"
)

// ErrChoose says that several signed a bundle, and a kernel looks at one
// signature alone.
var ErrChoose = errors.New("several signed it, and kernels check the first signature alone")

// Export is a bundle that is to be written in forms that others boot.
type Export struct {
	bundle *bundle.Bundle
	kernel *signature.Kernel
	first  string // fingerprint of the key whose signatures are wanted; empty: it is not signed
	valid  []signature.Signature
}

// OpenExport reads the kernel and chooses the signatures: those of the signer
// that who trusts, or, when who is nil, of the only one. A bundle that nobody
// signed is refused with signature.ErrUnsigned, unless allowUnsigned is set.
func OpenExport(ctx context.Context, b *bundle.Bundle, who *trust.Identity, allowUnsigned bool) (*Export, error) {
	e := &Export{bundle: b}
	if err := e.open(ctx, who, allowUnsigned); err != nil {
		return nil, errors.Join(fmt.Errorf("exporting bundle %q: %w", b.Manifest.Name, err), e.Close())
	}
	return e, nil
}

// OpenPlain reads the kernel alone: what is written has no signature of the bundle's, and is to
// be signed as a whole.
func OpenPlain(ctx context.Context, b *bundle.Bundle) (*Export, error) {
	e := &Export{bundle: b}
	var err error
	if e.kernel, err = signature.OpenKernel(ctx, b); err == nil {
		err = e.kernel.Err
	}
	if err != nil {
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
	if e.kernel, err = signature.OpenKernel(ctx, e.bundle); err != nil {
		return err
	}
	if e.kernel.Err != nil {
		return e.kernel.Err
	}
	signatures, err := signature.Read(ctx, e.bundle, e.kernel)
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
			if err := who.CheckSigner(s.Signer, nil, time.Now()); err != nil {
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
		return fmt.Errorf("%w: %w", signature.ErrRefused, signature.ErrUnsigned)
	}
	return fmt.Errorf("%w: no signature over its kernel will do: %w", signature.ErrRefused, refused)
}

// Boot writes what a boot loader takes to two files: the bzImage, the chosen signature first,
// then those of others, and the initramfs. Files that are there are replaced; what is no file is
// refused.
func (e *Export) Boot(ctx context.Context, kernel, initramfs string) error {
	if err := regular.CheckOutput(kernel); err != nil {
		return err // before anything is written
	}
	err := regular.Replace(initramfs, func(w io.Writer) error { return e.bundle.CopyLayer(ctx, w, bundle.InitramfsType) })
	if err != nil {
		return err
	}
	if err := regular.Replace(kernel, e.writeKernel); err != nil {
		return fmt.Errorf("%w (%q is written, and fits no other kernel)", err, initramfs)
	}
	return nil
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

// ErrDetached says that a form is for sealed bundles alone.
var ErrDetached = errors.New("the bundle is detached")

// UKI writes a unified kernel image, made with systemd's stub, to a file: the kernel as Boot
// writes it, and the initramfs. The key, unless it is nil, signs the whole. Such an image takes
// more for its initramfs than it has, such as credentials beside it, so a detached bundle is
// refused with ErrDetached: its kernel would unpack that.
func (e *Export) UKI(ctx context.Context, path string, stub []byte, key *signer.Key) (err error) {
	m := e.bundle.Manifest
	if !m.Initramfs.Sealed {
		return fmt.Errorf("exporting bundle %q: %w", m.Name, ErrDetached)
	}
	var kernel bytes.Buffer
	if err := e.writeKernel(&kernel); err != nil {
		return err
	}
	file := func(name, content string) uki.Section {
		return uki.Section{Name: name, Size: int64(len(content)), Write: func(w io.Writer) error { _, err := io.WriteString(w, content); return err }}
	}
	tmp, err := os.CreateTemp("", "tenon-uki-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tmp.Close(), os.Remove(tmp.Name())) }()
	err = uki.Write(tmp, stub, []uki.Section{
		file(".osrel", osRelease(m)),
		file(".uname", m.Kernel.Release),
		{Name: ".initrd", Size: e.bundle.Size(bundle.InitramfsType), Write: func(w io.Writer) error { return e.bundle.CopyLayer(ctx, w, bundle.InitramfsType) }},
		file(".linux", kernel.String()),
	})
	if err != nil {
		return err
	}
	size, err := tmp.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	image, err := authenticode.Parse(tmp, size)
	if err != nil {
		return err
	}
	var signatures [][]byte
	if key != nil {
		digest, err := image.Digest(ctx)
		if err != nil {
			return err
		}
		one, err := authenticode.Sign(key, digest)
		if err != nil {
			return err
		}
		signatures = [][]byte{one}
	}
	return regular.Replace(path, func(w io.Writer) error { return image.Attach(w, signatures...) })
}

// osRelease is what boot menus show of a unified kernel image: os-release(5).
func osRelease(m *manifest.Manifest) string {
	if m.BundleVersion == "" {
		return fmt.Sprintf("ID=%[1]s\nNAME=%[1]s\nPRETTY_NAME=%[1]s\n", m.Name)
	}
	return fmt.Sprintf("ID=%[1]s\nNAME=%[1]s\nPRETTY_NAME=\"%[1]s %[2]s\"\nVERSION_ID=%[2]s\n", m.Name, m.BundleVersion)
}

// Dir writes everything to a new directory: the signed bzImage, the initramfs,
// the command line, what describes the bundle, and the other
// signatures of the chosen signer with what they are over.
func (e *Export) Dir(ctx context.Context, dir string) (err error) {
	dir = filepath.Clean(dir)
	if _, err := os.Lstat(dir); err == nil {
		return fs.ErrExist // early; the rename decides
	}
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
	return rename.NoReplace(tmp, dir)
}

func (e *Export) fill(ctx context.Context, dir string) error {
	document, err := json.MarshalIndent(e.bundle.Manifest, "", "  ")
	if err != nil {
		return err
	}
	layer := func(mt types.MediaType) func(io.Writer) error {
		return func(w io.Writer) error { return e.bundle.CopyLayer(ctx, w, mt) }
	}
	data := func(b []byte) func(io.Writer) error {
		return func(w io.Writer) error { _, err := w.Write(b); return err }
	}
	files := []exported{
		{"bzImage", e.writeKernel},
		{"config", layer(bundle.ConfigType)},
		{"System.map", layer(bundle.SystemMapType)},
		{"fidelity.json", layer(bundle.FidelityType)},
		{"manifest.json", data(append(document, '\n'))},
		{"cmdline", data([]byte(e.bundle.Manifest.CommandLine + "\n"))},
		{"initramfs.cpio.zst", layer(bundle.InitramfsType)},
	}
	for _, s := range e.valid {
		switch {
		case signer.Fingerprint(s.Signer.Key) != e.first:
		case s.Kind.Type == bundle.StatementType:
			st, err := signature.Statement(e.bundle).Marshal()
			if err != nil {
				return err
			}
			files = append(files, exported{"statement", data(st)}, exported{"statement.p7s", data(s.Data)})
		case s.Kind.Type == bundle.SigstoreType:
			files = append(files, exported{"sigstore.json", data(s.Data)})
		}
	}
	for _, f := range files {
		if err := f.put(dir); err != nil {
			return err
		}
	}
	return nil
}

// exported is a file of Dir.
type exported struct {
	name  string
	write func(io.Writer) error
}

// put writes the file; the same signer's second signature of a kind replaces the
// first.
func (x *exported) put(dir string) error {
	f, err := os.Create(filepath.Join(dir, x.name))
	if err != nil {
		return err
	}
	return errors.Join(x.write(f), f.Sync(), f.Close())
}
