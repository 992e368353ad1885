// SPDX-License-Identifier: Apache-2.0

// Package loader verifies bundles and runs them as instances of a back end.
//
// In: a reference to a bundle and a Policy. Out: a *Verified, which alone a
// back end takes: its bytes are held in sealed memory, so that what was
// verified is what is booted. Refused: everything that the policy does not
// allow, with an error that wraps ErrRefused; accidents on the way, such as too
// many open files, are errors that do not.
package loader

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// ErrRefused says that verification or policy refused a bundle.
var ErrRefused = errors.New("refused")

// ErrUnsigned says that a bundle carries no signature. It comes wrapped in
// ErrRefused.
var ErrUnsigned = errors.New("the bundle is not signed")

// Policy says which bundles are accepted. The zero value accepts none.
type Policy struct {
	// AllowUnsigned accepts a bundle of which nothing but the digests was
	// checked. It is a developer's explicit wish for their own machine.
	AllowUnsigned bool
}

// Verified is a bundle that Verify accepted. Only Verify makes one; of the zero
// value, which has no manifest, Config.Resolve makes an error.
type Verified struct {
	manifest  []byte // JSON, so that nobody can change it through what Manifest returns
	digest    v1.Hash
	kernel    *os.File
	initramfs *os.File
}

// Verify opens the bundle (oci:DIR, oci-archive:FILE or a path to either),
// reads all that will be booted into sealed memory, checks every digest, and
// then the policy.
func Verify(ctx context.Context, ref string, policy Policy) (*Verified, error) {
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return nil, refuse(err)
	}
	defer b.Close()
	v := &Verified{digest: b.Digest}
	if err := v.verify(ctx, b, policy); err != nil {
		return nil, errors.Join(fmt.Errorf("bundle %q: %w", ref, refuse(err)), v.Close())
	}
	return v, nil
}

// refuse wraps a verdict in ErrRefused. That a bundle could not be read, or that
// somebody gave up, is none.
func refuse(err error) error {
	if errors.Is(err, bundle.ErrInvalid) || errors.Is(err, ErrUnsigned) {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

func (v *Verified) verify(ctx context.Context, b *bundle.Bundle, policy Policy) error {
	if !policy.AllowUnsigned {
		return ErrUnsigned // signatures do not exist yet
	}
	var err error
	if v.manifest, err = json.Marshal(b.Manifest); err != nil {
		return err
	}
	if v.kernel, err = sealedMemory(ctx, b, bundle.KernelType); err != nil {
		return err
	}
	if b.Manifest.Initramfs.Sealed {
		return nil
	}
	if got := b.LayerDigest(bundle.InitramfsType).String(); got != b.Manifest.Initramfs.Digest {
		return fmt.Errorf("%w: the initramfs layer is %s, the manifest says %s", bundle.ErrInvalid, got, b.Manifest.Initramfs.Digest)
	}
	v.initramfs, err = sealedMemory(ctx, b, bundle.InitramfsType)
	return err
}

// sealedMemory copies a layer into a memfd that nobody can change any more.
func sealedMemory(ctx context.Context, b *bundle.Bundle, mt types.MediaType) (*os.File, error) {
	r, err := b.OpenLayer(mt)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	fd, err := unix.MemfdCreate(string(mt), unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), string(mt))
	_, err = io.Copy(f, readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	}))
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Manifest returns a copy of the bundle's manifest, nil of the zero Verified.
func (v *Verified) Manifest() *manifest.Manifest {
	m, err := manifest.Decode(v.manifest)
	if err != nil { // it was decoded before, so there is none
		return nil
	}
	return m
}

// Digest returns the bundle's identity.
func (v *Verified) Digest() v1.Hash { return v.digest }

// Kernel returns the bzImage in sealed memory. The file belongs to v.
func (v *Verified) Kernel() *os.File { return v.kernel }

// Initramfs returns the detached initramfs in sealed memory, nil when the
// bundle is sealed. The file belongs to v.
func (v *Verified) Initramfs() *os.File { return v.initramfs }

// Close frees the memory.
func (v *Verified) Close() error {
	var errs []error
	for _, f := range []*os.File{v.kernel, v.initramfs} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
