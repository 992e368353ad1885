// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// testPort returns a port and the host's end of it.
func testPort(t *testing.T) (*port, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[1]) })
	return &port{fd: fds[0]}, fds[1]
}

func TestPortDeadlines(t *testing.T) {
	p, _ := testPort(t)
	defer p.close()
	p.readDeadline = time.Now().Add(20 * time.Millisecond)
	if n, err := p.Read(make([]byte, 1)); n != 0 || err != os.ErrDeadlineExceeded {
		t.Errorf("read: %d, %v", n, err)
	}
	p.writeDeadline = time.Now().Add(20 * time.Millisecond)
	if n, err := p.Write(make([]byte, 16<<20)); n == 0 || err != os.ErrDeadlineExceeded {
		t.Errorf("write: %d, %v", n, err)
	}
}

func TestPortReads(t *testing.T) {
	p, host := testPort(t)
	defer p.close()
	if _, err := unix.Write(host, []byte("ab")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 8)
	if n, err := p.Read(b); string(b[:n]) != "ab" || err != nil {
		t.Errorf("got %q, %v", b[:n], err)
	}
	if err := unix.Shutdown(host, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, err := p.Read(b); n != 0 || err != io.EOF {
		t.Errorf("hung up: %d, %v", n, err)
	}
}

func TestPortCloseEndsRead(t *testing.T) {
	p, _ := testPort(t)
	if err := p.interruptible(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := p.Read(make([]byte, 1))
		ended <- err
	}()
	time.Sleep(20 * time.Millisecond) // most likely it waits by now
	p.close()
	if err := <-ended; err != os.ErrClosed {
		t.Errorf("the read that waited: %v", err)
	}
	if _, err := p.Read(nil); err != os.ErrClosed {
		t.Errorf("read: %v", err)
	}
	if _, err := p.Write([]byte("x")); err != os.ErrClosed {
		t.Errorf("write: %v", err)
	}
}
