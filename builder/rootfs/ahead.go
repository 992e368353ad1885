// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"io"
	"sync"
)

// Buffers between two stages of reading a layer: enough for neither to wait for
// each chunk, few enough to stay in the processor's cache.
const (
	aheadBuffers = 4
	aheadSize    = 256 << 10
)

// ahead reads from another reader in a goroutine of its own, so that what that
// one does (decompress, hash) runs beside what its own reader does. Memory is
// bounded by its buffers, which go round. Close ends it and waits.
type ahead struct {
	full chan chunk
	free chan []byte
	quit chan struct{}
	done sync.WaitGroup
	rest []byte // of cur
	cur  chunk
}

type chunk struct {
	buf []byte // all of it, to be given back
	n   int
	err error // after the bytes
}

func readAhead(r io.Reader) *ahead {
	a := &ahead{full: make(chan chunk, aheadBuffers), free: make(chan []byte, aheadBuffers), quit: make(chan struct{})}
	for range aheadBuffers {
		a.free <- make([]byte, aheadSize)
	}
	a.done.Go(func() { a.fill(r) })
	return a
}

func (a *ahead) fill(r io.Reader) {
	for {
		select {
		case <-a.quit:
			return
		case buf := <-a.free:
			c := chunk{buf: buf}
			for c.n < len(buf) && c.err == nil {
				var n int
				n, c.err = r.Read(buf[c.n:])
				c.n += n
			}
			a.full <- c // has room for all buffers
			if c.err != nil {
				return
			}
		}
	}
}

// Read returns what was read; errors come after all that came before them.
func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.buf != nil {
			a.free <- a.cur.buf // has room for all buffers
		}
		a.cur = <-a.full
		a.rest = a.cur.buf[:a.cur.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close lets the goroutine end after the read that it is in.
func (a *ahead) Close() {
	close(a.quit)
	a.done.Wait()
}
