// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// SealedLayer copies a layer, whose digest it checks, into a memfd that nobody
// can change any more. The file is the caller's.
func (b *Bundle) SealedLayer(ctx context.Context, mt types.MediaType) (*os.File, error) {
	fd, err := unix.MemfdCreate(string(mt), unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), string(mt))
	if err = b.CopyLayer(ctx, f, mt); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// CopyLayer writes a layer to w and checks its digest.
func (b *Bundle) CopyLayer(ctx context.Context, w io.Writer, mt types.MediaType) error {
	r, err := b.OpenLayer(mt)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(contextWriter{ctx, w}, r)
	return err
}

// CheckLayer reads a layer and checks its digest.
func (b *Bundle) CheckLayer(ctx context.Context, mt types.MediaType) error {
	return b.CopyLayer(ctx, io.Discard, mt)
}

// contextWriter is w until ctx ends.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(p)
}
