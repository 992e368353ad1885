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
	"time"

	"golang.org/x/sys/unix"
)

// What an instance printed is kept in two files of its directory: when the first one
// is full, it replaces the second.
const (
	consoleFile = "console.log"
	consoleOld  = "console.log.1"
	consoleSize = 1 << 20 // bytes of one file
)

// tryAgain is how long what waits for room is left alone, while nothing else is printed.
const tryAgain = 5 * time.Second

// console is what an instance prints. Writing never fails, so that the instance goes on
// when the disk is full: what there is no room for waits in memory, as much as a file has or
// twice that, and viewers read it there. Readers that are slow lose what is no longer kept.
type console struct {
	dir  string
	size int64 // of one file, and at least of waiting

	mu      sync.Mutex
	old     segment       // without a file before the first one was full
	now     segment       // without a file while none can be made
	waiting []byte        // the last that was printed, for which there was no room
	end     int64         // offset behind that, among all that was printed
	changed chan struct{} // closed with each change
	closed  bool
	lost    error // why there is no room
	again   *time.Timer
}

// segment is a file, and which part of all that was printed it has: from start to end, behind
// a note of so many bytes.
type segment struct {
	file             *os.File
	note, start, end int64
}

func (s *segment) size() int64 { return s.note + s.end - s.start }

func (s *segment) readAt(p []byte, at int64) (int, error) {
	return s.file.ReadAt(p[:min(int64(len(p)), s.end-at)], s.note+at-s.start)
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
	return c, c.open(os.O_TRUNC)
}

// open opens the file of what is printed from now on.
func (c *console) open(flags int) error {
	f, err := openRegular(filepath.Join(c.dir, consoleFile), os.O_RDWR|os.O_CREATE|flags)
	if err == nil {
		c.now = segment{file: f, start: c.end, end: c.end}
	}
	return err
}

func openRegular(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, f.Close(), fmt.Errorf("%s is not a regular file", path))
	}
	return f, nil
}

// goOn opens what is kept.
func (c *console) goOn() error {
	old, err := openRegular(filepath.Join(c.dir, consoleOld), os.O_RDONLY)
	if err == nil {
		c.old.file = old
		c.old.end, err = old.Seek(0, io.SeekEnd)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	c.end = c.old.end
	if err := c.open(0); err != nil {
		return err
	}
	size, err := c.now.file.Seek(0, io.SeekEnd)
	c.now.end += size
	c.end = c.now.end
	return err
}

// Write keeps what an instance printed.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, p...)
	c.end += int64(len(p))
	c.keep()
	if n := int64(len(c.waiting)); n > 2*c.size {
		c.waiting = append([]byte(nil), c.waiting[n-c.size:]...)
	}
	c.wake()
	return len(p), nil
}

// keep writes what waits. Where there is no room, it does so again after a while: an instance
// may print nothing more for long.
func (c *console) keep() {
	if c.lost = c.flush(); c.lost == nil || c.again != nil {
		return
	}
	c.again = time.AfterFunc(tryAgain, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.again = nil; !c.closed {
			c.keep()
		}
	})
}

// flush writes what waits to the files, as far as there is room.
func (c *console) flush() error {
	for len(c.waiting) > 0 {
		missing := c.end - int64(len(c.waiting)) - c.kept()
		if c.now.file == nil || missing > 0 || c.now.size() >= c.size {
			if err := c.next(missing); err != nil {
				return err
			}
		}
		n, err := c.now.file.Write(c.waiting[:min(int64(len(c.waiting)), c.size-c.now.size())])
		c.now.end += int64(n)
		c.waiting = c.waiting[n:]
		if err != nil {
			return err
		}
	}
	c.waiting = nil
	return nil
}

// kept is the offset behind what is in the files.
func (c *console) kept() int64 { return max(c.old.end, c.now.end) }

// next begins another file, with a note of what is missing before it.
func (c *console) next(missing int64) error {
	kept := c.kept()
	if c.now.file != nil && c.now.size() > 0 {
		if err := os.Rename(c.now.file.Name(), filepath.Join(c.dir, consoleOld)); err != nil {
			return err
		}
		if c.old.file != nil {
			_ = c.old.file.Close() // it was only read
		}
		c.old, c.now = c.now, segment{}
	}
	if c.now.file == nil {
		if err := c.open(os.O_TRUNC); err != nil {
			return err
		}
	}
	c.now.start, c.now.end = kept+missing, kept+missing
	if missing == 0 {
		return nil
	}
	note := fmt.Appendf(nil, "\n[mortise: %d bytes are missing: %v]\n", missing, reason(c.lost))
	n, err := c.now.file.WriteAt(note, 0)
	if err == nil {
		_, err = c.now.file.Seek(int64(n), io.SeekStart)
	}
	if err != nil {
		c.now.start, c.now.end = kept, kept
		return errors.Join(err, c.now.file.Truncate(0))
	}
	c.now.note = int64(n)
	return nil
}

// reason takes the file's name off an error.
func reason(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

// wake tells those who follow.
func (c *console) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// read reads from an offset among all that was printed, or from the first one after it that
// is kept. Where there is nothing yet, it returns a channel that is closed when there is;
// at the end of all, io.EOF.
func (c *console) read(p []byte, at int64) (n int, next int64, wait <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range []*segment{&c.old, &c.now} {
		if s.file != nil && at < s.end {
			at = max(at, s.start)
			n, err = s.readAt(p, at)
			return n, at + int64(n), nil, err
		}
	}
	memory := c.end - int64(len(c.waiting))
	switch at = max(at, memory); {
	case at < c.end:
		n = copy(p, c.waiting[at-memory:])
	case c.closed:
		return 0, at, nil, io.EOF
	default:
		return 0, at, c.changed, nil
	}
	return n, at + int64(n), nil, nil
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

// Close says that nothing more is going to be printed. The error says what of it is not kept.
func (c *console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	if c.again != nil {
		c.again.Stop()
	}
	c.lost = c.flush()
	c.wake()
	if c.lost != nil {
		return fmt.Errorf("the last %d bytes that were printed were not kept: %w", c.end-c.kept(), c.lost)
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
