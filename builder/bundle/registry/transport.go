// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tenon-build/tenon/builder/bundle/limit"
)

// What a registry does wrong; test with errors.Is.
var (
	ErrSilent   = errors.New("the registry is silent")
	ErrTooLarge = fmt.Errorf("the registry's answer is larger than %d bytes", limit.Answer)
	ErrTooMany  = errors.New("the registry lists too many referrers")

	// ErrPlainHTTP says that a registry was to be asked without TLS, and nothing allows that.
	ErrPlainHTTP = errors.New("plain HTTP is not allowed for this registry")
)

// slowest is how fast an answer has to come, in bytes per second over each time of silence.
const slowest = 1 << 10

// newTransport is the library's transport, which gives up on a peer that is silent, goes on
// with blobs that break off, and refuses answers that have to be held in memory and are too
// large.
func newTransport(certificates *tls.Config, silence time.Duration) http.RoundTripper {
	base := remote.DefaultTransport
	if t, ok := base.(*http.Transport); ok {
		t = t.Clone()
		t.TLSClientConfig = certificates
		t.TLSHandshakeTimeout = 2 * silence // of a peer that is not silent
		t.ResponseHeaderTimeout = 2 * silence
		t.DisableCompression = true // a part of a blob begins at a byte of it
		t.DialContext = patient(t.DialContext, silence)
		base = t
	}
	return modest{resuming{steady{base, silence}}}
}

type dial = func(ctx context.Context, network, address string) (net.Conn, error)

func patient(next dial, silence time.Duration) dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := next(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &patientConn{c, silence}, nil
	}
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

// steady gives up on an answer that comes too slowly, as one that never ends does.
type steady struct {
	next    http.RoundTripper
	silence time.Duration
}

func (t steady) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err == nil {
		resp.Body = &steadyBody{ReadCloser: resp.Body, window: t.silence}
	}
	return resp, err
}

type steadyBody struct {
	io.ReadCloser
	window time.Duration
	waited time.Duration // for the bytes of this window
	got    int
}

func (b *steadyBody) Read(p []byte) (int, error) {
	asked := time.Now()
	n, err := b.ReadCloser.Read(p)
	b.got += n
	b.waited += time.Since(asked)
	if b.waited < b.window || err != nil {
		return n, err
	}
	if want := int(slowest * b.window.Seconds()); b.got < want {
		return n, fmt.Errorf("%w: %d bytes in %s, and it takes %d", ErrSilent, b.got, b.window, want)
	}
	b.got, b.waited = 0, 0
	return n, nil
}

// oneScheme refuses requests of a registry by the other scheme than that which it is reached
// by: the library tries TLS first where plain HTTP is asked for, and plain HTTP after TLS at
// private addresses, where credentials would go in the clear.
type oneScheme struct {
	next    http.RoundTripper
	host    string
	refused string // "http" or "https"
}

func (t oneScheme) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != t.host || r.URL.Scheme != t.refused {
		return t.next.RoundTrip(r)
	}
	if t.refused == "http" {
		return nil, ErrPlainHTTP
	}
	return nil, errors.New("plain HTTP is asked for")
}

// blobPath is the end of the path under which a registry has a blob.
var blobPath = regexp.MustCompile(`/blobs/sha256:[0-9a-f]{64}$`)

// isBlob says whether a request is for a blob, also where it was redirected, perhaps to a
// storage with other paths.
func isBlob(r *http.Request) bool {
	for r.Response != nil {
		r = r.Response.Request
	}
	return r.Method == http.MethodGet && blobPath.MatchString(r.URL.Path)
}

// modest refuses answers that have to be held in memory and are too large.
type modest struct{ next http.RoundTripper }

func (m modest) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := m.next.RoundTrip(r)
	if err == nil && !isBlob(r) {
		resp.Body = &modestBody{resp.Body, limit.Answer}
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
		return 0, ErrTooLarge
	}
	return n, err
}

// tries is how often a blob that breaks off is asked for again. What fails before its first
// byte, the library tries again by itself.
const tries = 3

// resuming goes on with a blob where it broke off. Whether all parts are of one blob, its
// digest tells.
type resuming struct{ next http.RoundTripper }

func (t resuming) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusOK && isBlob(r) {
		resp.Body = &resumed{ReadCloser: resp.Body, next: t.next, request: r, size: resp.ContentLength}
	}
	return resp, err
}

type resumed struct {
	io.ReadCloser
	next    http.RoundTripper
	request *http.Request
	size    int64 // -1: not known
	done    int64
	failed  int
}

func (b *resumed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.done += int64(n)
	for n == 0 && err != io.EOF && broken(err) && b.resume() {
		n, err = b.ReadCloser.Read(p)
		b.done += int64(n)
	}
	if n > 0 && err != io.EOF {
		err = nil // it comes again
	}
	return n, err
}

// resume asks for the rest, after a while, and says whether it comes.
func (b *resumed) resume() bool {
	ctx := b.request.Context()
	if b.failed++; b.failed >= tries {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Duration(b.failed) * time.Second):
	}
	again := b.request.Clone(ctx)
	if b.size > 0 {
		again.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.done, b.size-1))
	}
	resp, err := b.next.RoundTrip(again) //nolint:bodyclose // it is the body from now on
	if err != nil {
		return broken(err) && b.resume()
	}
	b.Close()
	b.ReadCloser = resp.Body
	if resp.StatusCode == http.StatusOK { // all of it
		_, err = io.CopyN(io.Discard, resp.Body, b.done)
		return err == nil || b.resume()
	}
	return resp.StatusCode == http.StatusPartialContent
}

// broken says whether an error is the connection's, so that another one may do better.
func broken(err error) bool {
	var network net.Error
	if errors.Is(err, ErrSilent) {
		return false
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.As(err, &network)
}
