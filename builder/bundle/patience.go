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
	"strings"
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
	return modest{t}
}

// maxAnswer is the largest manifest or list that is taken from a registry, in
// bytes.
const maxAnswer = 4 << 20

// modest refuses answers that have to be held in memory and are too large.
type modest struct{ next http.RoundTripper }

func (m modest) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := m.next.RoundTrip(r)
	asked := r
	for asked.Response != nil { // redirected, perhaps to a storage with other paths
		asked = asked.Response.Request
	}
	if err == nil && !strings.Contains(asked.URL.Path, "/blobs/") {
		resp.Body = &modestBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type modestBody struct {
	io.ReadCloser
	left int
}

func (b *modestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("%w: the registry's answer is larger than %d bytes", ErrInvalid, maxAnswer)
	}
	return n, err
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
