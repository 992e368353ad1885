// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/kconfig"
)

// content is what a bundle holds.
type content struct {
	manifest *manifest.Manifest
	fields   map[string]any // as fields returns them
	files    *files
	config   *kconfig.Config
	asked    *asked
	fidelity *fidelity.Report
}

// read reads a bundle, and with it every layer that it compares to its end.
func read(ctx context.Context, s Side) (*content, error) {
	c := &content{manifest: s.Bundle.Manifest}
	err := c.read(ctx, s.Bundle)
	if err != nil {
		return nil, fmt.Errorf("reading bundle %q: %w", s.Name, err)
	}
	return c, nil
}

func (c *content) read(ctx context.Context, b *bundle.Bundle) error {
	var err error
	if c.fields, err = fields(b); err != nil {
		return err
	}
	data, err := b.ReadLayer(bundle.ConfigType)
	if err != nil {
		return err
	}
	if c.config, err = kconfig.ParseConfig(".config", data); err != nil {
		return fmt.Errorf("%w: %w", bundle.ErrInvalid, err)
	}
	if c.asked, err = findAsked(c.manifest, c.config); err != nil {
		return err
	}
	if c.fidelity, err = fidelity.Read(b); err != nil {
		return err
	}
	c.files, err = readFiles(ctx, b)
	return err
}

// readFiles lists the initramfs of a bundle.
func readFiles(ctx context.Context, b *bundle.Bundle) (f *files, err error) {
	packed, err := openInitramfs(b)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, packed.Close()) }()
	z, err := zstd.NewReader(packed, zstd.WithDecoderMaxWindow(128<<20)) // what the kernel itself takes
	if err != nil {
		return nil, err
	}
	defer z.Close()
	f = newFiles()
	if err := initramfs.List(&reader{ctx, z}, f.add, xattrsName); err != nil {
		return nil, fmt.Errorf("initramfs: %w", err)
	}
	return f, f.readXattrs()
}

// reader stops when ctx ends, with what ended it.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}

// openInitramfs returns the compressed archive that will run, whose size and
// digest are checked where it ends.
func openInitramfs(b *bundle.Bundle) (io.ReadCloser, error) {
	if got, want := b.LayerDigest(bundle.InitramfsType).String(), b.Manifest.Initramfs.Digest; got != want {
		return nil, fmt.Errorf("%w: initramfs: the layer has the digest %s, the manifest %s", bundle.ErrInvalid, got, want)
	}
	return b.OpenLayer(bundle.InitramfsType)
}
