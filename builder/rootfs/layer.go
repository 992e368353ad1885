// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"math"
	"os"
	"path"
	"runtime"
	"strings"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

// Limits bound what an image may make us do.
type Limits struct {
	Entries int   // names in all layers together
	Bytes   int64 // unpacked bytes of all layers together
}

// DefaultLimits allow 4 million entries and 64 GiB.
var DefaultLimits = Limits{Entries: 4 << 20, Bytes: 64 << 30}

// maxZstdWindow bounds the memory that a zstd layer can ask for: 128 MiB, what
// zstd itself accepts without --long=31.
const maxZstdWindow = 128 << 20

// Whiteouts, as in the OCI image specification, "Whiteouts".
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

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
			failed = t.apply(r.changes, i+1)
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

func checkLength(name string, _ *Inode) error {
	if len(name) >= pathMax {
		return fmt.Errorf("%.40q...: path longer than %d bytes", name, pathMax-1)
	}
	return nil
}

var errLimits = errors.New("more entries or bytes than the limits allow")

// budget is what is left of the limits for all layers together, which are read
// side by side.
type budget struct{ entries, bytes atomic.Int64 }

func newBudget(l Limits) *budget {
	var b budget
	b.entries.Store(int64(l.Entries))
	b.bytes.Store(l.Bytes)
	return &b
}

// take takes one entry of a size.
func (b *budget) take(size int64) error {
	if b.entries.Add(-1) < 0 || b.bytes.Add(-size) < 0 {
		return errLimits
	}
	return nil
}

// changes is what one layer says, its contents spooled.
type changes struct {
	digest  v1.Hash
	entries []change
	spool   *os.File
	bytes   int64
}

type change struct {
	name     string // as in the archive
	hardlink string // target of a hard link, else empty
	inode    *Inode // nil for a hard link
}

// readLayer reads one layer; its errors name the digest. The changes are not
// nil as soon as there is a spool file to close, whatever the error.
func readLayer(ctx context.Context, layer v1.Layer, diffID v1.Hash, tmp string, left *budget, progress func(int64)) (*changes, error) {
	digest, err := layer.Digest()
	if err != nil {
		return nil, err
	}
	c, err := readBlob(ctx, layer, digest, diffID, tmp, left, progress)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return c, fmt.Errorf("%s: truncated: %w", digest, err)
	case err != nil:
		return c, fmt.Errorf("%s: %w", digest, err)
	}
	return c, nil
}

func readBlob(ctx context.Context, layer v1.Layer, digest, diffID v1.Hash, tmp string, left *budget, progress func(int64)) (*changes, error) {
	if err := ctx.Err(); err != nil {
		return nil, err // before a registry is asked for the blob
	}
	mt, err := layer.MediaType()
	if err != nil {
		return nil, err
	}
	if err := checkMediaType(mt); err != nil {
		return nil, err
	}
	size, err := layer.Size()
	if err != nil {
		return nil, err
	}
	blob, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer blob.Close()

	blobSum, plainSum := sha256.New(), sha256.New()
	raw := &meter{ctx: ctx, r: blob, sum: blobSum, left: size, progress: progress}
	plain, closePlain, err := decompress(bufio.NewReaderSize(raw, 1<<20))
	if err != nil {
		return nil, err
	}
	defer closePlain()
	spool, err := spoolFile(tmp)
	if err != nil {
		return nil, err
	}
	c := &changes{digest: digest, spool: spool}
	body := io.TeeReader(plain, plainSum)
	if err := c.read(tar.NewReader(body), left); err != nil {
		return c, err
	}
	// What follows the end of the archive is covered by the digests too.
	if _, err := io.Copy(io.Discard, body); err != nil {
		return c, err
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return c, err
	}
	if raw.left != 0 {
		return c, fmt.Errorf("truncated: %d of %d bytes are missing", raw.left, size)
	}
	if got := sum(blobSum); got != digest {
		return c, fmt.Errorf("digest mismatch: the content is %s", got)
	}
	if got := sum(plainSum); got != diffID {
		return c, fmt.Errorf("diff id mismatch: the config says %s, the content is %s", diffID, got)
	}
	return c, nil
}

func sum(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}

func checkMediaType(mt types.MediaType) error {
	switch mt {
	case types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd, types.DockerLayer, types.DockerUncompressedLayer:
		return nil
	case types.DockerForeignLayer, types.OCIRestrictedLayer, types.OCIUncompressedRestrictedLayer:
		return fmt.Errorf("media type %s: foreign layers are not supported", mt)
	}
	if strings.HasSuffix(string(mt), "+encrypted") {
		return fmt.Errorf("media type %s: encrypted layers are not supported", mt)
	}
	return fmt.Errorf("media type %q is not a layer", mt)
}

// spoolFile makes a file without a name, so that nothing is left behind
// whatever ends the process.
func spoolFile(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(spool)"), nil
	}
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// meter hashes and counts what is read, at most left bytes.
type meter struct {
	ctx      context.Context
	r        io.Reader
	sum      hash.Hash
	left     int64
	progress func(int64)
}

func (m *meter) Read(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.r.Read(p)
	m.sum.Write(p[:n])
	if m.left -= int64(n); m.left < 0 {
		return 0, errors.New("longer than its descriptor says")
	}
	m.progress(int64(n))
	return n, err
}

// decompress tells gzip, zstd and plain by their first bytes, as media types
// in the wild are not to be trusted for that.
func decompress(r *bufio.Reader) (io.Reader, func(), error) {
	magic, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		return z, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

func (c *changes) read(tr *tar.Reader, left *budget) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		ch, err := newChange(h)
		if err == nil {
			err = left.take(ch.size())
		}
		if err == nil && ch.size() > 0 {
			ch.inode.data, ch.inode.offset = c.spool, c.bytes
			_, err = io.Copy(c.spool, tr)
			c.bytes += ch.inode.Size
		}
		if err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
		c.entries = append(c.entries, ch)
	}
}

func newChange(h *tar.Header) (change, error) {
	ch := change{name: h.Name}
	if len(h.Name) >= pathMax || len(h.Linkname) >= pathMax {
		return ch, fmt.Errorf("name or link target longer than %d bytes", pathMax-1)
	}
	if h.Typeflag == tar.TypeLink {
		ch.hardlink = h.Linkname
		return ch, nil
	}
	var err error
	ch.inode, err = newInode(h)
	return ch, err
}

func (ch *change) size() int64 {
	if ch.inode == nil {
		return 0
	}
	return ch.inode.Size
}

func newInode(h *tar.Header) (*Inode, error) {
	n := &Inode{
		Perm: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid, ModTime: h.ModTime,
		Xattrs: xattrs(h),
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.Type, n.Size = Regular, h.Size
	case tar.TypeDir:
		n.Type, n.children = Directory, map[string]*entry{}
	case tar.TypeSymlink:
		n.Type, n.Target = Symlink, h.Linkname
		if n.Target == "" {
			return nil, errors.New("symlink without a target")
		}
	case tar.TypeChar, tar.TypeBlock:
		if uint64(h.Devmajor) > math.MaxUint32 || uint64(h.Devminor) > math.MaxUint32 {
			return nil, fmt.Errorf("device %d:%d does not exist", h.Devmajor, h.Devminor)
		}
		n.Type, n.Major, n.Minor = CharDevice, uint32(h.Devmajor), uint32(h.Devminor)
		if h.Typeflag == tar.TypeBlock {
			n.Type = BlockDevice
		}
	case tar.TypeFifo:
		n.Type = FIFO
	default:
		return nil, fmt.Errorf("unknown entry type %q", h.Typeflag)
	}
	return n, nil
}

// xattrs returns the extended attributes that the header carries.
func xattrs(h *tar.Header) map[string]string {
	const prefix = "SCHILY.xattr."
	out := map[string]string{}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, prefix); ok {
			out[name] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// apply changes the tree as layer number layer says. Whiteouts hide what lower
// layers made, wherever they stand in the layer, and never its own entries.
func (t *Tree) apply(c *changes, layer int) error {
	for _, ch := range c.entries {
		if err := t.applyOne(ch, layer); err != nil {
			return fmt.Errorf("%s: %.200q: %w", c.digest, ch.name, err)
		}
	}
	return nil
}

func (t *Tree) applyOne(ch change, layer int) error {
	dir, base, err := t.mkparents(ch.name, layer)
	if err != nil {
		return err
	}
	switch {
	case base == "":
		if ch.inode == nil || ch.inode.Type != Directory {
			return errors.New("the root can only be a directory")
		}
		dir.become(ch.inode)
		return nil
	case base == opaqueName:
		prune(dir, layer)
		return nil
	case strings.HasPrefix(base, whiteoutPrefix):
		hidden := strings.TrimPrefix(base, whiteoutPrefix)
		if hidden == "" || hidden == "." || hidden == ".." {
			return errors.New("whiteout without a name")
		}
		pruneEntry(dir, hidden, layer)
		return nil
	}
	n := ch.inode
	if n == nil {
		if n, err = t.linkTarget(ch.hardlink); err != nil {
			return fmt.Errorf("hard link to %q: %w", ch.hardlink, err)
		}
	}
	if old := dir.children[base]; old != nil && old.inode.Type == Directory && n.Type == Directory {
		old.inode.become(n)
		old.layer = layer
		return nil
	}
	dir.children[base] = &entry{inode: n, layer: layer}
	return nil
}

// become takes over the attributes of another directory and keeps the entries.
func (n *Inode) become(other *Inode) {
	children := n.children
	*n = *other
	n.children = children
}

func (t *Tree) linkTarget(name string) (*Inode, error) {
	dir, base, err := t.parent(name)
	if err != nil {
		return nil, err
	}
	e := dir.children[base]
	if e == nil {
		return nil, os.ErrNotExist
	}
	if e.inode.Type == Directory {
		return nil, errors.New("is a directory")
	}
	return e.inode, nil
}

// prune removes what layers below layer put into dir.
func prune(dir *Inode, layer int) {
	for name := range maps.Clone(dir.children) {
		pruneEntry(dir, name, layer)
	}
}

func pruneEntry(dir *Inode, name string, layer int) {
	e := dir.children[name]
	if e == nil {
		return
	}
	if e.inode.Type == Directory {
		prune(e.inode, layer)
		if len(e.inode.children) > 0 { // something of this layer is in it
			if e.layer < layer {
				// As if the whiteout had stood before what is in it.
				e.inode.become(newDir())
				e.layer = layer
			}
			return
		}
	}
	if e.layer < layer {
		delete(dir.children, name)
	}
}

// Clean returns the form of a path that Walk uses.
func Clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
