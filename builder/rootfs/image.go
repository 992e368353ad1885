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
	Bytes   int64 // contents of files, of all layers together
	Ratio   int64 // of a layer of more than 1 GiB to its packed size; 0: any
}

// DefaultLimits allow 4 million entries, 64 GiB, and 250 times the packed size.
// Real layers are 2 to 10 times theirs; gzip makes 1032 zeros of one byte, zstd
// far more, and a sparse file any number of nothing.
var DefaultLimits = Limits{Entries: 4 << 20, Bytes: 64 << 30, Ratio: 250}

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

// PathMax is the kernel's PATH_MAX: names and link targets with their NUL
// byte. Together with Walk's order it also bounds how deep a tree is.
const PathMax = 4096

// NameMax is the kernel's NAME_MAX: one element of a path, without a NUL byte.
const NameMax = 255

func checkLength(name string, _ *Inode) error {
	if len(name) >= PathMax {
		return fmt.Errorf("%.40q...: path longer than %d bytes", name, PathMax-1)
	}
	if base := name[strings.LastIndexByte(name, '/')+1:]; len(base) > NameMax {
		return fmt.Errorf("%.40q...: name longer than %d bytes", base, NameMax)
	}
	return nil
}

// maxMetadata bounds the memory for names, link targets and extended
// attributes of all layers together, in bytes.
const maxMetadata = 1 << 30

// What an image has too much of; test with errors.Is.
var (
	ErrEntries = errors.New("more files than the limit allows")
	ErrSize    = errors.New("more bytes than the limit allows")
	ErrRatio   = errors.New("unpacks to many times its packed size")
)

var errMetadata = fmt.Errorf("more than %d MiB of names, link targets and extended attributes", maxMetadata>>20)

// budget is what is left of the limits for all layers together, which are read
// side by side. A nil budget is without limits.
type budget struct {
	limits                   Limits
	entries, bytes, metadata atomic.Int64
	stream                   atomic.Int64 // of archives, with headers and padding
}

func newBudget(l Limits) *budget {
	b := budget{limits: l}
	b.entries.Store(int64(l.Entries))
	b.bytes.Store(l.Bytes)
	b.metadata.Store(maxMetadata)
	b.stream.Store(l.Bytes + maxOverhead)
	return &b
}

// maxOverhead bounds headers and padding of all layers together, in bytes: four
// times what the headers of 4 million files take.
const maxOverhead = 8 << 30

// take takes one entry with size bytes of content.
func (b *budget) take(size int64, metadata int) error {
	switch {
	case b == nil:
		return nil
	case b.entries.Add(-1) < 0:
		return fmt.Errorf("%w (%d)", ErrEntries, b.limits.Entries)
	case b.bytes.Add(-size) < 0:
		return fmt.Errorf("%w (%d)", ErrSize, b.limits.Bytes)
	case b.metadata.Add(int64(-metadata)) < 0:
		return errMetadata
	}
	return nil
}
