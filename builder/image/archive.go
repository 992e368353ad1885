// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/tarfs"
	"github.com/tenon-build/tenon/builder/decompress"
	"github.com/tenon-build/tenon/signer/regular"
)

// openArchive opens a tar archive. A compressed one, as 'docker save | gzip' makes it, is unpacked
// first into a file without a name in $TMPDIR.
func openArchive(ctx context.Context, file string, progress func(int64)) (*tarfs.FS, error) {
	f, err := regular.Open(file)
	if err != nil {
		return nil, err
	}
	plain, compressed, err := decompress.New(ctx, counted{ctx, f, progress})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", file, err), f.Close())
	}
	if !compressed {
		return tarfs.New(f)
	}
	spool, err := unpackArchive(plain, f)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("unpacking %s: %w", file, err), f.Close())
	}
	return tarfs.New(spool)
}

// unpackArchive spools an archive, within its limits.
func unpackArchive(plain io.ReadCloser, packed *os.File) (spool *os.File, err error) {
	defer plain.Close()
	info, err := packed.Stat()
	if err != nil {
		return nil, err
	}
	if spool, err = os.CreateTemp("", "tenon-archive-"); err != nil {
		return nil, err
	}
	most := min(max(1<<30, limit.ImageRatio*info.Size()), limit.ImageArchive)
	n, err := io.Copy(spool, io.LimitReader(plain, most+1))
	if err == nil {
		err = plain.Close()
	}
	if err == nil && n > most {
		err = fmt.Errorf("more than %d bytes come out of %d", most, info.Size())
	}
	if err := errors.Join(err, os.Remove(spool.Name())); err != nil {
		return nil, errors.Join(err, spool.Close())
	}
	return spool, nil
}

// counted reports what is read, and stops when ctx ends.
type counted struct {
	ctx      context.Context
	r        io.Reader
	progress func(int64)
}

func (c counted) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.progress(int64(n))
	return n, err
}
