// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// silence is how long a registry may neither send nor take a byte.
const silence = time.Minute

// ErrSilent says that a registry stopped answering.
var ErrSilent = errors.New("the registry is silent")

// patient is the library's transport, but gives up on a peer that is silent.
func patient(silence time.Duration) http.RoundTripper {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &patientConn{c, silence}, nil
	}
	return t
}

// patientConn ends when nothing has moved in either direction for a while.
type patientConn struct {
	net.Conn
	silence time.Duration
}

func (c *patientConn) Read(p []byte) (int, error) {
	return c.move(c.Conn.Read, p)
}

func (c *patientConn) Write(p []byte) (int, error) {
	return c.move(c.Conn.Write, p)
}

// move moves the deadline of both directions, as a peer that takes what we send
// is not silent.
func (c *patientConn) move(fn func([]byte) (int, error), p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.silence)); err != nil {
		return 0, err
	}
	n, err := fn(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: nothing moved for %s", ErrSilent, c.silence) // and is not tried again
	}
	return n, err
}

// broken says whether an error is the connection's, so that another one may do
// better.
func broken(err error) bool {
	var network net.Error
	if errors.Is(err, ErrSilent) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.As(err, &network)
}
