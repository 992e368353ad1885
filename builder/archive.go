// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// archive describes a cpio archive that was written.
type archive struct {
	stats  initramfs.Stats
	size   int64  // as written
	digest string // as written
	seal   seal.Seal
}

// archive writes the tree as a cpio archive. Compressed, it is one zstd frame:
// the kernel's unpacker takes no more for an archive.
func (c *content) archive(ctx context.Context, w io.Writer, compressed bool, progress Progress) (*archive, error) {
	out := &digester{w: w, sum: sha256.New(), seal: seal.NewHash()}
	packer := io.WriteCloser(out)
	if compressed {
		z, err := newCompressor(out)
		if err != nil {
			return nil, err
		}
		packer = z
	}
	stats, err := initramfs.Write(&progressWriter{ctx: ctx, w: packer, report: func(n int64) { progress(StagePack, n, 0) }}, c.tree, rootfs.Clean(manifest.SpecPath))
	if err := errors.Join(err, packer.Close()); err != nil {
		return nil, err
	}
	c.fidelity.Entries, c.fidelity.Bytes = stats.Entries, stats.Bytes
	return &archive{stats, out.size, "sha256:" + hex.EncodeToString(out.sum.Sum(nil)), out.seal.Seal()}, nil
}

// newCompressor returns an encoder of about the ratio of zstd -3. Concurrency lets
// it look for matches, code what it found, and take input side by side; one
// frame has use for no more, and its bytes are the same without.
func newCompressor(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(2))
}

// digester hashes and counts what is written.
type digester struct {
	w    io.Writer
	sum  hash.Hash
	seal *seal.Hash
	size int64
}

func (d *digester) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	d.sum.Write(p[:n])
	_, _ = d.seal.Write(p[:n])
	d.size += int64(n)
	return n, err
}

// Close ends nothing: the file belongs to the caller.
func (d *digester) Close() error { return nil }

// progressWriter counts what is written, and stops when ctx ends.
type progressWriter struct {
	ctx    context.Context
	w      io.Writer
	done   int64
	report func(int64)
}

func (p *progressWriter) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	before := p.done
	if p.done += int64(n); p.done>>20 != before>>20 {
		p.report(p.done)
	}
	return n, err
}
