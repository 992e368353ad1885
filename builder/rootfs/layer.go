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
	"math"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/rootfs/gunzip"
)

// maxZstdWindow bounds the memory that a zstd layer can ask for: 128 MiB, what
// zstd itself accepts without --long=31.
const maxZstdWindow = 128 << 20

// changes is what one layer says, its contents spooled.
type changes struct {
	digest  v1.Hash
	entries []change
	spool   *os.File
	bytes   int64
}

type change struct {
	name     string // clean: ".." means what it says, not the parent of what a symlink leads to
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
	counted := &meter{ctx: ctx, r: blob, sum: blobSum, left: size, progress: progress}
	// Four stages side by side: hash, decompress, hash, read the archive.
	raw := readAhead(counted)
	defer raw.Close()
	plain, closePlain, err := decompress(bufio.NewReaderSize(raw, 64<<10))
	if err != nil {
		return nil, err
	}
	defer closePlain()
	decompressed := readAhead(plain)
	defer decompressed.Close()
	body := readAhead(io.TeeReader(&inflation{r: decompressed, left: left, packed: size}, plainSum))
	defer body.Close()
	spool, err := spoolFile(tmp)
	if err != nil {
		return nil, err
	}
	c := &changes{digest: digest, spool: spool}
	// Small files share a system call. The buffer must not let the file itself
	// read, which takes a new buffer for each of them.
	out := bufio.NewWriterSize(struct{ io.Writer }{spool}, 1<<20)
	if err := c.read(tar.NewReader(body), out, size, left); err != nil {
		return c, err
	}
	if err := out.Flush(); err != nil {
		return c, err
	}
	// What follows the end of the archive is covered by the digests too.
	if _, err := io.Copy(io.Discard, body); err != nil {
		return c, err
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return c, err
	}
	if counted.left != 0 {
		return c, fmt.Errorf("truncated: %d of %d bytes are missing", counted.left, size)
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

// dockerZstdLayer is what containerd calls a zstd layer of a Docker image.
const dockerZstdLayer types.MediaType = "application/vnd.docker.image.rootfs.diff.tar.zstd"

func checkMediaType(mt types.MediaType) error {
	switch mt {
	case types.OCILayer, types.OCIUncompressedLayer, types.OCILayerZStd,
		types.DockerLayer, types.DockerUncompressedLayer, dockerZstdLayer:
		return nil
	}
	switch s := string(mt); {
	case strings.HasSuffix(s, "+encrypted"):
		return fmt.Errorf("media type %s: encrypted layers are not supported", mt)
	case mt == types.DockerForeignLayer, strings.Contains(s, ".nondistributable."):
		return fmt.Errorf("media type %s: foreign layers are not supported", mt)
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
		z, err := gunzip.NewReader(r)
		return z, func() {}, err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}),
		len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}): // a skippable frame, RFC 8878, 3.1.2
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow))
		if err != nil {
			return nil, nil, err
		}
		return z, z.Close, nil
	}
	return r, func() {}, nil
}

// read reads the archive of a layer whose blob has packed bytes, and writes the
// contents of its files to out.
func (c *changes) read(tr *tar.Reader, out io.Writer, packed int64, left *budget) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if err := checkGlobal(h); err != nil {
				return err
			}
			continue
		}
		ch, err := newChange(h)
		if err == nil {
			err = left.take(ch.size(), ch.metadata())
		}
		if err == nil { // a sparse file is larger than what the archive has of it
			err = left.checkRatio(c.bytes+ch.size(), packed)
		}
		if err == nil && ch.size() > 0 {
			ch.inode.data, ch.inode.offset = c.spool, c.bytes
			_, err = io.Copy(out, tr)
			c.bytes += ch.inode.Size
		}
		if err != nil {
			return fmt.Errorf("%.200q: %w", h.Name, err)
		}
		c.entries = append(c.entries, ch)
	}
}

// newChange copies every string that it keeps: package tar cuts them out of a
// header of up to 1 MiB, which would stay in memory with them.
func newChange(h *tar.Header) (change, error) {
	ch := change{name: Clean(h.Name)}
	if len(h.Name) >= PathMax || len(h.Linkname) >= PathMax {
		return ch, fmt.Errorf("name or link target longer than %d bytes", PathMax-1)
	}
	if h.Typeflag == tar.TypeLink {
		ch.hardlink = Clean(h.Linkname)
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

// metadata is about how many bytes of memory the entry takes for what an image
// can make long or many.
func (ch *change) metadata() int {
	n := len(ch.name) + len(ch.hardlink)
	if ch.inode != nil {
		n += len(ch.inode.Target) + xattrSize(ch.inode.Xattrs) + 128*len(ch.inode.Xattrs)
	}
	return n
}

func newInode(h *tar.Header) (*Inode, error) {
	attributes, err := xattrs(h)
	if err != nil {
		return nil, err
	}
	n := &Inode{
		Perm: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid, ModTime: h.ModTime,
		Xattrs: attributes,
	}
	if xattrSize(n.Xattrs) > maxXattrs {
		return nil, fmt.Errorf("extended attributes of more than %d bytes", maxXattrs)
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		n.Type, n.Size = Regular, h.Size
	case tar.TypeDir:
		n.Type, n.children = Directory, map[string]*Inode{}
	case tar.TypeSymlink:
		n.Type, n.Target = Symlink, strings.Clone(h.Linkname)
		if n.Target == "" {
			return nil, errors.New("symlink without a target")
		}
	case tar.TypeChar, tar.TypeBlock:
		major, minor, err := deviceNumbers(h)
		if err != nil {
			return nil, err
		}
		if major > math.MaxUint32 || minor > math.MaxUint32 {
			return nil, fmt.Errorf("device %d:%d does not exist", h.Devmajor, h.Devminor)
		}
		n.Type, n.Major, n.Minor = CharDevice, uint32(major), uint32(minor)
		if h.Typeflag == tar.TypeBlock {
			n.Type = BlockDevice
		}
	case tar.TypeFifo:
		n.Type = FIFO
	default:
		return nil, fmt.Errorf("unknown entry type %q", h.Typeflag)
	}
	_, access := n.Xattrs[AccessACL]
	_, inherited := n.Xattrs[DefaultACL]
	if access && n.Type == Symlink || inherited && n.Type != Directory {
		return nil, errors.New("an access control list where there can be none")
	}
	return n, nil
}

// maxXattrs bounds the extended attributes of one file, names and values
// together. It is what the kernel takes of either: XATTR_LIST_MAX and
// XATTR_SIZE_MAX.
const maxXattrs = 64 << 10

func xattrSize(x map[string]string) (n int) {
	for k, v := range x {
		n += len(k) + len(v)
	}
	return n
}
