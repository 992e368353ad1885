// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// blobReader checks what it reads.
type blobReader struct {
	what string
	file io.ReadCloser
	desc descriptor
	left int64
	sum  hash.Hash
}

func newBlobReader(what string, file io.ReadCloser, d descriptor) *blobReader {
	return &blobReader{what: what, file: file, desc: d, left: d.Size, sum: sha256.New()}
}

func (r *blobReader) Close() error { return r.file.Close() }

func (r *blobReader) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	r.sum.Write(p[:n])
	return r.judge(n, err)
}

// judge judges the n bytes that were read and added to the sum, and the error
// that came with them.
func (r *blobReader) judge(n int, err error) (int, error) {
	r.left -= int64(n)
	switch {
	case r.left < 0:
		return 0, fmt.Errorf("%w: %s %s is longer than %d bytes", ErrInvalid, r.what, r.desc.Digest, r.desc.Size)
	case err == io.EOF && r.left > 0:
		return 0, fmt.Errorf("%w: %s %s is truncated: %d of %d bytes are missing", ErrInvalid, r.what, r.desc.Digest, r.left, r.desc.Size)
	case err != nil && r.left == 0: // also when who read it for us found the wrong content
		if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.desc.Digest.Hex {
			return 0, fmt.Errorf("%w: %s: digest mismatch: %s has the content sha256:%s", ErrInvalid, r.what, r.desc.Digest, got)
		}
	case err != nil && err != io.EOF:
		return n, fmt.Errorf("%s %s: %w", r.what, r.desc.Digest, err)
	}
	return n, err
}

// WriteTo writes the whole blob, and hashes while it writes.
func (r *blobReader) WriteTo(w io.Writer) (int64, error) {
	buf := make([]byte, 1<<20)
	hashed := make(chan struct{}, 1)
	var written int64
	for {
		n, err := r.file.Read(buf)
		go func() {
			r.sum.Write(buf[:n])
			hashed <- struct{}{}
		}()
		var failed error
		if int64(n) <= r.left { // not what is too much
			_, failed = w.Write(buf[:n])
		}
		<-hashed
		if failed != nil {
			return written, failed
		}
		if _, err = r.judge(n, err); err == nil {
			written += int64(n)
			continue
		}
		if err == io.EOF {
			return written + int64(n), nil
		}
		return written, err
	}
}
