// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Limits bound what an image may make us do.
type Limits struct {
	Entries int   // names in all layers together, and the parents that they imply
	Bytes   int64 // unpacked bytes of all layers together
}

// DefaultLimits allow 4 million entries and 64 GiB.
var DefaultLimits = Limits{Entries: 4 << 20, Bytes: 64 << 30}

// FromImage unpacks the layers of img in order. tmp is the directory of the
// spool files; progress is called with the number of compressed bytes read
// since the last call, from several goroutines.
func FromImage(ctx context.Context, img v1.Image, tmp string, limits Limits, progress func(n int64)) (*Tree, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, fmt.Errorf("reading the image's layers: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the image's config: %w", err)
	}
	if len(config.RootFS.DiffIDs) != len(layers) {
		return nil, fmt.Errorf("image config lists %d diff ids, the manifest %d layers", len(config.RootFS.DiffIDs), len(layers))
	}

	// Layers are read side by side and applied in order.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		changes *changes
		err     error
	}
	results := make([]chan result, len(layers))
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	left := newBudget(limits)
	for i := range layers {
		results[i] = make(chan result, 1)
	}
	go func() {
		for i, layer := range layers {
			slots <- struct{}{}
			go func() {
				defer func() { <-slots }()
				c, err := readLayer(ctx, layer, config.RootFS.DiffIDs[i], tmp, left, progress)
				results[i] <- result{c, err}
			}()
		}
	}()

	t := New()
	var failed error
	for i := range layers {
		r := <-results[i]
		if r.changes != nil {
			t.spools = append(t.spools, r.changes.spool)
		}
		switch {
		case failed != nil:
			continue // collect what is still running
		case r.err != nil:
			failed = r.err
		default:
			failed = t.apply(ctx, r.changes, left)
		}
		if failed != nil {
			failed = fmt.Errorf("layer %d of %d: %w", i+1, len(layers), failed)
			cancel()
		}
	}
	if failed == nil {
		failed = t.Walk(checkLength)
	}
	if failed != nil {
		return nil, errors.Join(failed, t.Close())
	}
	return t, nil
}

// pathMax is the kernel's PATH_MAX: names and link targets with their NUL
// byte. Together with Walk's order it also bounds how deep a tree is.
const pathMax = 4096

// nameMax is the kernel's NAME_MAX: one element of a path, without a NUL byte.
const nameMax = 255

func checkLength(name string, _ *Inode) error {
	if len(name) >= pathMax {
		return fmt.Errorf("%.40q...: path longer than %d bytes", name, pathMax-1)
	}
	if base := name[strings.LastIndexByte(name, '/')+1:]; len(base) > nameMax {
		return fmt.Errorf("%.40q...: name longer than %d bytes", base, nameMax)
	}
	return nil
}

// maxMetadata bounds the memory for names, link targets and extended
// attributes of all layers together, in bytes.
const maxMetadata = 1 << 30

var (
	errLimits   = errors.New("more entries or bytes than the limits allow")
	errMetadata = fmt.Errorf("more than %d MiB of names, link targets and extended attributes", maxMetadata>>20)
)

// budget is what is left of the limits for all layers together, which are read
// side by side. A nil budget is without limits.
type budget struct{ entries, bytes, metadata atomic.Int64 }

func newBudget(l Limits) *budget {
	var b budget
	b.entries.Store(int64(l.Entries))
	b.bytes.Store(l.Bytes)
	b.metadata.Store(maxMetadata)
	return &b
}

// take takes one entry with size bytes of content.
func (b *budget) take(size int64, metadata int) error {
	switch {
	case b == nil:
		return nil
	case b.entries.Add(-1) < 0 || b.bytes.Add(-size) < 0:
		return errLimits
	case b.metadata.Add(int64(-metadata)) < 0:
		return errMetadata
	}
	return nil
}
