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
	"regexp"
	"sync"
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
		t.TLSHandshakeTimeout = 0   // silence is one everywhere
		t.DisableCompression = true // a part of a blob begins at a byte of it
		base = t
	}
	return modest{resuming{patient{base, silence}}}
}

// patient gives up on a peer that is silent while it owes something: to take what is sent, to
// answer, to go on with its answer. A registry that stores what was pushed, or fetches a blob from
// elsewhere, may take ten times as long to answer.
type patient struct {
	next    http.RoundTripper
	silence time.Duration
}

func (t patient) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	w := &watch{silence: t.silence, answer: t.silence, cancel: cancel}
	if isBlob(r) || r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.answer *= 10
	}
	w.timer = time.AfterFunc(w.answer, w.giveUp)
	r = r.Clone(ctx)
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &watchedRequest{r.Body, w}
		if again := r.GetBody; again != nil {
			r.GetBody = func() (io.ReadCloser, error) {
				body, err := again()
				return &watchedRequest{body, w}, err
			}
		}
	}
	resp, err := t.next.RoundTrip(r)
	w.answered()
	if err != nil {
		err = w.why(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &watchedAnswer{ReadCloser: resp.Body, watch: w, ctx: ctx}
	return resp, nil
}

// watch ends a request whose peer is silent.
type watch struct {
	silence, answer time.Duration
	cancel          context.CancelCauseFunc

	mu    sync.Mutex
	timer *time.Timer
	done  bool // the answer has begun
}

func (w *watch) giveUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	waited := w.answer
	if w.done {
		waited = w.silence
	}
	w.cancel(fmt.Errorf("%w: nothing moved for %s", ErrSilent, waited))
}

// sending begins to wait anew, as the peer has taken something.
func (w *watch) sending() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.timer.Reset(w.answer)
	}
}

func (w *watch) answered() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = true
	w.timer.Stop()
}

// why says of an error whether the peer was given up, which is not tried again.
func (w *watch) why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, ErrSilent) {
		return cause
	}
	return err
}

// watchedRequest is what is sent.
type watchedRequest struct {
	io.ReadCloser
	*watch
}

func (b *watchedRequest) Read(p []byte) (int, error) {
	b.sending()
	return b.ReadCloser.Read(p)
}

// watchedAnswer is what comes back. One that comes too slowly is given up, too, as one that never
// ends does. Only the time that somebody waits for it counts.
type watchedAnswer struct {
	io.ReadCloser
	*watch
	ctx    context.Context
	waited time.Duration // for got bytes
	got    int
}

func (b *watchedAnswer) Read(p []byte) (int, error) {
	asked := time.Now()
	b.timer.Reset(b.silence)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	b.got += n
	b.waited += time.Since(asked)
	if err != nil && err != io.EOF {
		err = b.why(b.ctx, err)
	}
	if b.waited < b.silence || err != nil {
		return n, err
	}
	if want := int(slowest * b.silence.Seconds()); b.got < want {
		return n, fmt.Errorf("%w: %d bytes in %s, and it takes %d", ErrSilent, b.got, b.silence, want)
	}
	b.got, b.waited = 0, 0
	return n, nil
}

func (b *watchedAnswer) Close() error {
	defer b.cancel(nil)
	return b.ReadCloser.Close()
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
