// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"
)

// SealedLayer copies a layer into a memfd that nobody can change any more, and
// checks its digest there. beside, if it is not nil, looks at the same bytes in
// the meantime: what it finds counts only if there is no error. The file is the
// caller's.
func (b *Bundle) SealedLayer(ctx context.Context, mt types.MediaType, beside func(f *os.File, size int64)) (*os.File, error) {
	d, ok := b.layer(mt)
	if !ok {
		return nil, fmt.Errorf("%w: no layer of type %q", ErrInvalid, mt)
	}
	what := "layer " + string(mt)
	r, err := b.openBlob(what, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	fd, err := unix.MemfdCreate(string(mt), unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), string(mt))
	size, err := io.CopyBuffer(contextWriter{ctx, f}, io.LimitReader(r, d.Size+1), make([]byte, 1<<20))
	if err == nil {
		err = seal(ctx, f)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", what, err), f.Close())
	}
	var looking sync.WaitGroup
	if beside != nil {
		looking.Go(func() { beside(f, size) })
	}
	memory := io.NopCloser(io.NewSectionReader(f, 0, size))
	_, err = newBlobReader(what, memory, d).WriteTo(contextWriter{ctx, io.Discard})
	looking.Wait()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// ReadLayer returns a layer whole, whose digest it checks: of the documents, which
// have no more than 64 MiB.
func (b *Bundle) ReadLayer(mt types.MediaType) ([]byte, error) {
	r, err := b.OpenLayer(mt)
	if err != nil {
		return nil, err
	}
	return readWhole(r, b.Size(mt))
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

// seal makes a memfd unchangeable. While the kernel still has its hands on a page,
// which a busy machine makes last, it says EBUSY, and is asked again.
func seal(ctx context.Context, f *os.File) error {
	for tries := 0; ; tries++ {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
		if err != unix.EBUSY || tries == 100 {
			return os.NewSyscallError("sealing memory", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
