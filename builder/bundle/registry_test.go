// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	tenonregistry "github.com/tenon-build/tenon/builder/bundle/registry"
)

// newRegistry is a registry in this process. A handler may stand before it.
func newRegistry(t *testing.T, api bool, before func(next http.Handler) http.Handler) (host string) {
	t.Helper()
	h := registry.New(registry.WithReferrersSupport(api), registry.Logger(log.New(io.Discard, "", 0)))
	if before != nil {
		h = before(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.CloseClientConnections)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func TestPushAndPull(t *testing.T) {
	for _, api := range []bool{true, false} {
		ref := newRegistry(t, api, nil) + "/team/web:1"
		dir := t.TempDir()
		b := signed(t, dir+"/a")
		var moved, total atomic.Int64
		for range 2 { // again changes nothing
			where, err := b.Push(t.Context(), ref, func(done, all int64) { moved.Store(done); total.Store(all) })
			if err != nil || where != strings.TrimSuffix(ref, ":1")+"@"+b.Digest.String() {
				t.Fatal(where, err)
			}
		}
		if moved.Load() == 0 || total.Load() < moved.Load() {
			t.Errorf("moved %d of %d", moved.Load(), total.Load())
		}
		byDigest := strings.TrimSuffix(ref, ":1") + "@" + b.Digest.String()
		for i, from := range []string{ref, "docker://" + ref, byDigest} {
			pulled := opened(t, from)
			if !slices.Equal(contents(t, pulled), twoReferrers) || pulled.Digest != b.Digest {
				t.Errorf("%s: %q", from, contents(t, pulled))
			}
			for _, form := range []string{"oci:", "oci-archive:"} {
				if err := pulled.Save(t.Context(), fmt.Sprint(form, dir, "/", i, form[:len(form)-1]), nil); err != nil {
					t.Fatal(err)
				}
			}
			if snapshot(t, dir+"/a") != snapshot(t, fmt.Sprint(dir, "/", i, "oci")) {
				t.Errorf("%s: pulled\n%spushed\n%s", from, snapshot(t, fmt.Sprint(dir, "/", i, "oci")), snapshot(t, dir+"/a"))
			}
		}
		// Signing where it lies.
		if err := opened(t, ref).Attach(t.Context(), attachment(SigstoreType, "three")); err != nil {
			t.Fatal(err)
		}
		if got := contents(t, opened(t, ref)); len(got) != 3 {
			t.Errorf("%q", got)
		}
		if _, err := b.Push(t.Context(), strings.TrimSuffix(ref, ":1")+"@sha256:"+sha(nil), nil); err == nil || !strings.Contains(err.Error(), b.Digest.String()) {
			t.Errorf("pushed to another digest: %v", err)
		}
	}
}

// Whoever signs at the same time loses nothing, also where each writes the list
// of referrers anew.
func TestAttachInRegistryAtOnce(t *testing.T) {
	t.Parallel()
	for _, api := range []bool{true, false} {
		ref := newRegistry(t, api, nil) + "/team/web:1"
		if _, err := signed(t, t.TempDir()+"/a").Push(t.Context(), ref, nil); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 4 {
			b := opened(t, ref)
			all.Go(func() {
				if err := b.Attach(t.Context(), attachment(SigstoreType, fmt.Sprint(i)), attachment(StatementType, fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := contents(t, opened(t, ref)); len(got) != 10 {
			t.Errorf("referrers API: %v, %d: %q", api, len(got), got)
		}
	}
}

// A registry can list, and send, more than anybody has memory for.
func TestRegistryTalksTooMuch(t *testing.T) {
	t.Parallel()
	for what, body := range map[string]string{
		"/manifests/": strings.Repeat(" ", limit.Answer+1), "/referrers/": strings.Repeat(" ", limit.Answer+1),
	} {
		var f *faulty
		host := newRegistry(t, true, func(next http.Handler) http.Handler {
			f = &faulty{next: next, blob: "nothing", how: func(w http.ResponseWriter, _ []byte, _ int) { _, _ = io.WriteString(w, body) }}
			return f
		})
		if _, err := signed(t, t.TempDir()+"/a").Push(t.Context(), host+"/web:1", nil); err != nil {
			t.Fatal(err)
		}
		f.blob = what
		if _, err := Open(t.Context(), host+"/web:1"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "larger than 4194304 bytes") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestRegistryRefuses(t *testing.T) {
	host := newRegistry(t, true, nil)
	if _, err := Open(t.Context(), host+"/no/such:1"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrInvalid) {
		t.Errorf("missing: %v", err)
	}
	for _, ref := range []string{"web", "web:1", "oci:web", "./web", "oci-archive:" + host + "/web"} {
		if _, err := Open(t.Context(), ref); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "://") {
			t.Errorf("%s is no reference to a registry: %v", ref, err)
		}
		if _, err := signed(t, t.TempDir()+"/b").Push(t.Context(), ref, nil); !errors.Is(err, ErrReference) {
			t.Errorf("push to %s: %v", ref, err)
		}
	}
	if _, err := signed(t, t.TempDir()+"/b").Push(t.Context(), host+"/UPPER:1", nil); err == nil || !strings.Contains(err.Error(), "UPPER") {
		t.Errorf("malformed: %v", err)
	}
	if _, err := Open(t.Context(), "127.0.0.1:1/no/such:1"); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
	// An image that is no bundle.
	image := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"x","size":0,"digest":"sha256:` + sha(nil) + `"},"layers":[]}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+host+"/v2/image/manifests/1", strings.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status, err)
	}
	if _, err := Open(t.Context(), host+"/image:1"); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), `with artifact type "", not`) {
		t.Errorf("image: %v", err)
	}
}

// faulty damages the answers with a blob's content.
type faulty struct {
	next http.Handler
	blob string                                              // part of the path of the requests
	how  func(w http.ResponseWriter, body []byte, times int) // instead of the body

	whole  bool // it knows no parts of blobs
	seen   atomic.Int32
	ranges atomic.Value // the last part that was asked for
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, f.blob) {
		f.next.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	if f.whole {
		r.Header.Del("Range")
	}
	f.ranges.Store(r.Header.Get("Range"))
	f.next.ServeHTTP(answer, r)
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.Header().Del("Content-Length")
	if answer.Code == http.StatusPartialContent {
		w.WriteHeader(answer.Code)
	}
	f.how(w, answer.Body.Bytes(), int(f.seen.Add(1)))
}

// breakOff sends half of the body and ends the connection.
func breakOff(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body[:len(body)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func TestRegistryFaults(t *testing.T) {
	big := bytes.Repeat([]byte("a kernel"), 1<<18)
	kernel := "/blobs/sha256:" + sha(big)
	tests := []struct {
		name, blob string
		how        func(w http.ResponseWriter, body []byte, times int)
		want       string // empty: it works in the end
		invalid    bool
	}{
		{"breaks off once", kernel, func(w http.ResponseWriter, body []byte, times int) {
			if times == 1 {
				breakOff(w, body)
			}
			_, _ = w.Write(body)
		}, "", false},
		{"breaks off always", kernel, func(w http.ResponseWriter, body []byte, _ int) { breakOff(w, body) }, "unexpected EOF", false},
		{"stops half-way", kernel, func(w http.ResponseWriter, body []byte, _ int) {
			w.Header().Set("Content-Length", fmt.Sprint(len(body)))
			_, _ = w.Write(body[:len(body)/2])
			w.(http.Flusher).Flush()
			time.Sleep(6 * time.Second)
		}, "the registry is silent: nothing moved for 1s", false},
		{"is slow, but goes on", kernel, func(w http.ResponseWriter, body []byte, _ int) {
			for part := range slices.Chunk(body, len(body)/5+1) {
				_, _ = w.Write(part)
				w.(http.Flusher).Flush()
				time.Sleep(600 * time.Millisecond)
			}
		}, "", false},
		{"fails", kernel, func(w http.ResponseWriter, _ []byte, _ int) { w.WriteHeader(http.StatusForbidden) }, "403", false},
		{"another blob", kernel, func(w http.ResponseWriter, body []byte, _ int) {
			body[5] ^= 1
			_, _ = w.Write(body)
		}, "digest mismatch", true},
		{"a blob that is cut", kernel, func(w http.ResponseWriter, body []byte, _ int) { _, _ = w.Write(body[:100]) }, "error verifying sha256 checksum after reading 100 bytes", false},
		{"a blob that is longer", kernel, func(w http.ResponseWriter, body []byte, _ int) { _, _ = w.Write(append(body, 0)) }, "longer than", true},
		{"another manifest", "/manifests/", func(w http.ResponseWriter, body []byte, _ int) {
			_, _ = w.Write(bytes.Replace(body, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1))
		}, "schema version 3", true},
		{"another manifest than was asked for", "/manifests/sha256:", func(w http.ResponseWriter, body []byte, _ int) { _, _ = w.Write(append(body, ' ')) }, "does not match", false},
		{"no JSON", "/manifests/", func(w http.ResponseWriter, _ []byte, _ int) { _, _ = io.WriteString(w, "<html>") }, "artifact type", true},
		{"referrers that are none", "/referrers/", func(w http.ResponseWriter, body []byte, _ int) {
			_, _ = w.Write(bytes.Replace(body, []byte(`"manifests":[`), []byte(`"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"sha256:`+sha([]byte("{}"))+`"},`), 1))
		}, "sha256:" + sha([]byte("{}")), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // they wait
			var f *faulty
			host := newRegistry(t, true, func(next http.Handler) http.Handler {
				f = &faulty{next: next, blob: "nothing", how: test.how}
				return f
			})
			c := content(t, "")
			if err := os.WriteFile(c.Kernel, big, 0o644); err != nil {
				t.Fatal(err)
			}
			b, err := New(c)
			if err != nil {
				t.Fatal(err)
			}
			err = b.Attach(t.Context(), attachment(StatementType, "one"))
			if err == nil {
				_, err = b.Push(t.Context(), host+"/web:1", nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.blob = test.blob
			dir := t.TempDir()
			err = pullTo(impatient(t), host+"/web:1", "oci:"+dir+"/out")
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrInvalid) != test.invalid {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// impatient waits a second for a registry.
func impatient(t *testing.T) context.Context {
	t.Helper()
	c, err := tenonregistry.New(tenonregistry.Settings{Silence: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return tenonregistry.NewContext(t.Context(), c)
}

func pullTo(ctx context.Context, ref, out string) error {
	b, err := Open(ctx, ref)
	if err != nil {
		return err
	}
	return b.Save(ctx, out, nil)
}

// A push that fails leaves no tag.
func TestPushFails(t *testing.T) {
	t.Parallel()
	refuse := func(part string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut && strings.Contains(r.URL.Path, part) || part == "silent" && r.Method == http.MethodPatch {
					if part == "silent" {
						_, _ = io.Copy(io.Discard, r.Body)
						<-r.Context().Done()
					}
					http.Error(w, "the disk is full", http.StatusInsufficientStorage)
					return
				}
				next.ServeHTTP(w, r)
			})
		}
	}
	for part, want := range map[string]string{"/blobs/": "507", "/manifests/sha256:": "507", "silent": "the registry is silent"} {
		host := newRegistry(t, true, refuse(part))
		_, err := signed(t, t.TempDir()+"/b").Push(impatient(t), host+"/web:1", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", part, err)
		}
		if _, err := Open(t.Context(), host+"/web:1"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: there is a tag: %v", part, err)
		}
	}
	// A registry may think for longer about what was sent to it.
	thinks := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				time.Sleep(2 * time.Second)
			}
			next.ServeHTTP(w, r)
		})
	}
	if _, err := signed(t, t.TempDir()+"/b").Push(impatient(t), newRegistry(t, true, thinks)+"/web:1", nil); err != nil {
		t.Errorf("a registry that thinks: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := signed(t, t.TempDir()+"/b").Push(ctx, newRegistry(t, true, nil)+"/web:1", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A blob that breaks off is read on from there, not from its beginning, if the registry can.
func TestPullResumes(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{false, true} {
		var f *faulty
		host := newRegistry(t, true, func(next http.Handler) http.Handler {
			f = &faulty{next: next, blob: "nothing", whole: whole, how: func(w http.ResponseWriter, body []byte, times int) {
				if times == 1 {
					breakOff(w, body)
				}
				_, _ = w.Write(body)
			}}
			return f
		})
		c := content(t, "")
		if err := os.WriteFile(c.Kernel, bytes.Repeat([]byte("a kernel"), 1<<18), 0o644); err != nil {
			t.Fatal(err)
		}
		b, err := New(c)
		if err == nil {
			_, err = b.Push(t.Context(), host+"/web:1", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.blob = "/blobs/" + b.LayerDigest(KernelType).String()
		if err := pullTo(impatient(t), host+"/web:1", "oci:"+t.TempDir()+"/out"); err != nil {
			t.Errorf("whole %v: %v", whole, err)
		}
		if part := f.ranges.Load(); (part == "") != whole || !whole && !strings.HasPrefix(part.(string), "bytes=1048") {
			t.Errorf("whole %v: asked for %q", whole, part)
		}
	}
}
