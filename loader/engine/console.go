// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// What an instance printed is kept in two files of its directory: when the first one
// is full, it replaces the second.
const (
	consoleFile = "console.log"
	consoleOld  = "console.log.1"
	consoleSize = 1 << 20 // bytes of one file
)

// console is what an instance prints. Writing never fails, so that the instance goes on
// when the disk is full. Readers that are slow lose what is no longer kept.
type console struct {
	dir  string
	size int64 // of one file

	mu      sync.Mutex
	now     *os.File
	old     *os.File      // nil before the first file was full
	start   int64         // offset of the first byte in now, among all that was printed
	end     int64         // of the last one
	oldSize int64         // bytes in old
	changed chan struct{} // closed with each change
	closed  bool
	lost    error // the first error of a write
}

// newConsole begins anew, or goes on after what is kept.
func newConsole(dir string, goOn bool) (*console, error) {
	c := &console{dir: dir, size: consoleSize, changed: make(chan struct{})}
	if goOn {
		return c, c.goOn()
	}
	if err := os.Remove(filepath.Join(dir, consoleOld)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return c, c.open()
}

func (c *console) open() (err error) {
	c.now, err = os.OpenFile(filepath.Join(c.dir, consoleFile), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	return err
}

// goOn opens what is kept.
func (c *console) goOn() (err error) {
	if c.old, err = os.Open(filepath.Join(c.dir, consoleOld)); errors.Is(err, fs.ErrNotExist) {
		c.old, err = nil, nil
	} else if err == nil {
		c.oldSize, err = c.old.Seek(0, io.SeekEnd)
	}
	if err != nil {
		return err
	}
	if c.now, err = os.OpenFile(filepath.Join(c.dir, consoleFile), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	size, err := c.now.Seek(0, io.SeekEnd)
	c.start, c.end = c.oldSize, c.oldSize+size
	return err
}

// Write keeps what an instance printed.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := len(p)
	for len(p) > 0 && c.lost == nil {
		if c.end-c.start >= c.size {
			c.lost = c.rotate()
			continue
		}
		n, err := c.now.Write(p[:min(int64(len(p)), c.size-(c.end-c.start))])
		c.end += int64(n)
		c.lost = err
		p = p[n:]
	}
	c.wake()
	return all, nil
}

func (c *console) rotate() error {
	if err := os.Rename(c.now.Name(), filepath.Join(c.dir, consoleOld)); err != nil {
		return err
	}
	if c.old != nil {
		_ = c.old.Close() // it was only read
	}
	c.old, c.oldSize, c.start = c.now, c.end-c.start, c.end
	return c.open()
}

// wake tells those who follow.
func (c *console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// read reads from an offset among all that was printed, or from the first one that is
// kept. Where there is nothing yet, it returns a channel that is closed when there is;
// at the end of all, io.EOF.
func (c *console) read(p []byte, at int64) (n int, next int64, wait <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at = max(at, c.start-c.oldSize)
	switch {
	case at < c.start:
		n, err = c.old.ReadAt(p[:min(int64(len(p)), c.start-at)], at-(c.start-c.oldSize))
	case at < c.end:
		n, err = c.now.ReadAt(p[:min(int64(len(p)), c.end-at)], at-c.start)
	case c.closed:
		return 0, at, nil, io.EOF
	default:
		return 0, at, c.changed, nil
	}
	return n, at + int64(n), nil, err
}

// follow copies what is printed, with what is kept or from now on, until the instance
// ends or ctx does. Where w was too slow, it gets a line that says so.
func (c *console) follow(ctx context.Context, w io.Writer, all bool) error {
	var at int64
	if !all {
		c.mu.Lock()
		at = c.end
		c.mu.Unlock()
	}
	buf := make([]byte, 32<<10)
	for {
		n, next, wait, err := c.read(buf, at)
		if err != nil {
			return err
		}
		if lost := next - int64(n) - at; lost > 0 && at > 0 {
			if _, err := fmt.Fprintf(w, "\n[mortise: %d bytes are not kept any more]\n", lost); err != nil {
				return err
			}
		}
		at = next
		if wait != nil {
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// Close says that nothing more is going to be printed. It returns the first error of
// keeping it.
func (c *console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	c.wake()
	if c.lost != nil {
		return fmt.Errorf("what was printed after %d bytes was not kept: %w", c.end, c.lost)
	}
	return nil
}

// Logs copies what an instance has printed, as far as it is kept.
func (e *Engine) Logs(name string, w io.Writer) error {
	if _, err := e.Store().Get(name); err != nil {
		return err
	}
	for _, file := range []string{consoleOld, consoleFile} {
		f, err := e.Store().OpenFile(name, file, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(w, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
