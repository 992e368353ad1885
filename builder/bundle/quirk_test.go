// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	tenonregistry "github.com/tenon-build/tenon/builder/bundle/registry"
)

// answering answers what handle says it does, and leaves the rest to the registry.
func answering(handle func(w http.ResponseWriter, r *http.Request, next http.Handler) (done bool)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !handle(w, r, next) {
				next.ServeHTTP(w, r)
			}
		})
	}
}

func isReferrers(r *http.Request) bool { return strings.Contains(r.URL.Path, "/referrers/") }

// quirks are registries as others reported them; docs/bundle.md has the table and the sources.
var quirks = []struct {
	name   string
	api    bool
	before func(*testing.T) func(http.Handler) http.Handler
	want   error // of push
}{
	{"distribution-2: no API", false, nil, nil},
	{"zot: API", true, func(*testing.T) func(http.Handler) http.Handler { return properTypes }, nil},
	{"gitlab: a tag sha256-HEX is the digest, until there is such a tag", false, func(*testing.T) func(http.Handler) http.Handler {
		return digestTags(false)
	}, nil},
	{"gitlab: a tag sha256-HEX is always the digest", false, func(*testing.T) func(http.Handler) http.Handler {
		return digestTags(true)
	}, tenonregistry.ErrNoReferrers},
	{"a page for people instead of the API", false, func(*testing.T) func(http.Handler) http.Handler {
		return answering(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if isReferrers(r) {
				w.Header().Set("Content-Type", "text/html")
				_, _ = io.WriteString(w, "<html>")
			}
			return isReferrers(r)
		})
	}, nil},
	{"ecr before 2024: no manifests with a subject", false, func(*testing.T) func(http.Handler) http.Handler {
		return answering(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			if r.Method != http.MethodPut || !strings.Contains(string(body), `"subject":`) {
				return false
			}
			w.WriteHeader(http.StatusMethodNotAllowed)
			_, _ = io.WriteString(w, `{"errors":[{"code":"UNSUPPORTED","message":"Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'"}]}`)
			return true
		})
	}, tenonregistry.ErrNoReferrers},
	{"harbor-2.7: 401 from the API, whoever asks", false, func(*testing.T) func(http.Handler) http.Handler {
		return answering(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if isReferrers(r) {
				w.WriteHeader(http.StatusUnauthorized)
			}
			return isReferrers(r)
		})
	}, nil},
	{"harbor-2.8: the list has the config's type", true, nil, nil}, // and so has the library's registry
	{"docker-hub: OCI-Subject without the API, and no subject that is not there yet", false, func(*testing.T) func(http.Handler) http.Handler {
		return answering(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
			if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
				return false
			}
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			_, after, ok := strings.Cut(string(body), `"subject":`)
			if !ok {
				return false
			}
			_, after, _ = strings.Cut(after, `"digest":"`)
			digest, _, _ := strings.Cut(after, `"`)
			there := httptest.NewRecorder()
			next.ServeHTTP(there, httptest.NewRequest(http.MethodGet, r.URL.Path[:strings.LastIndex(r.URL.Path, "/")+1]+digest, nil))
			if there.Code != http.StatusOK {
				w.WriteHeader(http.StatusNotFound)
				return true
			}
			w.Header().Set("OCI-Subject", digest)
			return false
		})
	}, nil},
	{"a list on pages", true, func(*testing.T) func(http.Handler) http.Handler { return onPages }, nil},
}

// digestTags takes sha256-HEX for sha256:HEX, always or where there is no such tag.
func digestTags(always bool) func(http.Handler) http.Handler {
	var mutex sync.Mutex
	there := map[string]bool{}
	return answering(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		mutex.Lock()
		defer mutex.Unlock()
		switch {
		case !strings.Contains(r.URL.Path, "/manifests/sha256-"):
		case r.Method == http.MethodPut:
			there[r.URL.Path] = true
		case always || !there[r.URL.Path]:
			r.URL.Path = strings.Replace(r.URL.Path, "/manifests/sha256-", "/manifests/sha256:", 1)
		}
		return false
	})
}

// relisted lets change change the list of referrers.
func relisted(next http.Handler, change func(w http.ResponseWriter, r *http.Request, list *ociIndex)) http.Handler {
	return answering(func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !isReferrers(r) {
			return false
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		var list ociIndex
		if err := json.Unmarshal(answer.Body.Bytes(), &list); err != nil {
			panic(err)
		}
		change(w, r, &list)
		w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
		_ = json.NewEncoder(w).Encode(list)
		return true
	})(next)
}

// properTypes lists artifact types as the specification wants.
func properTypes(next http.Handler) http.Handler {
	return relisted(next, func(_ http.ResponseWriter, r *http.Request, list *ociIndex) {
		repo, _, _ := strings.Cut(r.URL.Path, "/referrers/")
		for i := range list.Manifests {
			manifest := httptest.NewRecorder()
			next.ServeHTTP(manifest, httptest.NewRequest(http.MethodGet, repo+"/manifests/"+list.Manifests[i].Digest.String(), nil))
			var m referrerManifest
			if err := json.Unmarshal(manifest.Body.Bytes(), &m); err != nil {
				panic(err)
			}
			list.Manifests[i].ArtifactType = m.ArtifactType
		}
	})
}

// onPages puts each referrer on a page of its own.
func onPages(next http.Handler) http.Handler {
	return relisted(next, func(w http.ResponseWriter, r *http.Request, list *ociIndex) {
		slices.SortFunc(list.Manifests, func(a, b descriptor) int { return strings.Compare(a.Digest.Hex, b.Digest.Hex) })
		page, _ := strconv.Atoi(r.URL.Query().Get("page"))
		if page < len(list.Manifests)-1 {
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=%d>; rel="next"`, r.URL.Path, page+1))
		}
		list.Manifests = list.Manifests[page : page+1]
	})
}

// A registry that refuses to show the list of signatures does not have an empty one: attaching
// would replace it, and the bundle would seem to be unsigned.
func TestReferrersTagRefused(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotAcceptable, http.StatusNotImplemented, http.StatusOK} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var refuse atomic.Bool
			ref := newRegistry(t, false, answering(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				hidden := refuse.Load() && r.Method == http.MethodGet && (isReferrers(r) || strings.Contains(r.URL.Path, "/manifests/sha256-"))
				switch {
				case hidden && status == http.StatusOK && !isReferrers(r):
					_, _ = io.WriteString(w, "<html>")
				case hidden && status == http.StatusOK:
					w.WriteHeader(http.StatusNotFound)
				case hidden:
					w.WriteHeader(status)
				}
				return hidden
			})) + "/team/web:1"
			if _, err := signed(t, t.TempDir()+"/a").Push(t.Context(), ref, nil); err != nil {
				t.Fatal(err)
			}
			b := opened(t, ref)
			refuse.Store(true)
			if err := b.Attach(t.Context(), attachment(SigstoreType, "three")); err == nil {
				t.Error("attached to a list that cannot be read")
			}
			_, err := Open(t.Context(), ref)
			var refused *transport.Error
			if err == nil || errors.Is(err, ErrInvalid) || status != http.StatusOK && (!errors.As(err, &refused) || refused.StatusCode != status) {
				t.Errorf("opened: %v", err)
			}
			refuse.Store(false)
			if got := contents(t, opened(t, ref)); len(got) < 2 {
				t.Errorf("what was there is lost: %q", got)
			}
		})
	}
}

func TestRegistryQuirks(t *testing.T) {
	for _, q := range quirks {
		t.Run(q.name, func(t *testing.T) {
			t.Parallel()
			var before func(http.Handler) http.Handler
			if q.before != nil {
				before = q.before(t)
			}
			ref := newRegistry(t, q.api, before) + "/team/web:1"
			b := signed(t, t.TempDir()+"/a")
			_, err := b.Push(t.Context(), ref, nil)
			if !errors.Is(err, q.want) {
				t.Fatalf("got %v, want %v", err, q.want)
			}
			if q.want != nil {
				return
			}
			if err := opened(t, ref).Attach(t.Context(), attachment(SigstoreType, "three")); err != nil {
				t.Fatal(err)
			}
			pulled := opened(t, ref)
			if got := contents(t, pulled); len(got) != 3 || got[0] != SigstoreType+" three of three" && got[2] != StatementType+" two of two" {
				t.Errorf("%q", got)
			}
			if err := pulled.Save(t.Context(), t.TempDir()+"/copy", nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// Reports of scanners take nothing from signatures: they are not even read before they are
// copied, and however many there are, the bundle is verified.
func TestManyForeignReferrers(t *testing.T) {
	t.Parallel()
	foreign, more, read := 126, 0, 0
	host := newRegistry(t, true, func(next http.Handler) http.Handler {
		listed := relisted(properTypes(next), func(_ http.ResponseWriter, _ *http.Request, list *ociIndex) {
			for i := range more {
				d := list.Manifests[0]
				d.Digest.Hex, d.ArtifactType = fmt.Sprintf("%064x", i), "application/vnd.scanner+json"
				list.Manifests = append(list.Manifests, d)
			}
		})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/sha256:") {
				read++
			}
			listed.ServeHTTP(w, r)
		})
	})
	ref := host + "/team/web:1"
	b, err := New(content(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	for i := range foreign {
		if err := b.Attach(t.Context(), attachment("application/vnd.scanner+json", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	err = b.Attach(t.Context(), attachment(StatementType, "a"), attachment(AuthenticodeType, "b"), attachment(SigstoreType, "c"))
	if err == nil {
		_, err = b.Push(t.Context(), ref, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	read = 0
	pulled := opened(t, ref)
	if len(pulled.Referrers()) != 129 || read != 3 {
		t.Errorf("%d referrers, %d read", len(pulled.Referrers()), read)
	}
	if err := pulled.Save(t.Context(), t.TempDir()+"/copy", nil); err != nil {
		t.Error(err)
	}
	more = limit.Attachments
	pulled = opened(t, ref)
	signatures := 0
	for _, r := range pulled.Referrers() {
		if !isForeign(r.Type) {
			signatures++
		}
	}
	if signatures != 3 {
		t.Errorf("%d signatures", signatures)
	}
	if err := pulled.Save(t.Context(), t.TempDir()+"/copy", nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "more than 1024 referrers") {
		t.Error(err)
	}
}

// A mirror that has a bundle and none of its signatures is passed over.
func TestMirrorWithoutSignatures(t *testing.T) {
	mirror := newRegistry(t, true, nil)
	host := newRegistry(t, true, nil)
	config := filepath.Join(t.TempDir(), "registries.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "version = 1\n[[registry]]\nhost = %q\nmirrors = [%q]\n", host, mirror), 0o644); err != nil {
		t.Fatal(err)
	}
	client, err := tenonregistry.New(tenonregistry.Settings{Config: config})
	if err != nil {
		t.Fatal(err)
	}
	ctx := tenonregistry.NewContext(t.Context(), client)
	b := signed(t, t.TempDir()+"/b")
	if _, err := b.Push(t.Context(), host+"/web:1", nil); err != nil {
		t.Fatal(err)
	}
	referrers := b.referrers
	b.referrers = nil
	if _, err := b.Push(t.Context(), mirror+"/web:1", nil); err != nil {
		t.Fatal(err)
	}
	got, err := Open(ctx, host+"/web:1")
	if err != nil || len(got.referrers) != len(referrers) {
		t.Errorf("%v, %d referrers of %d", err, len(got.referrers), len(referrers))
	}
	if _, err := b.Push(t.Context(), mirror+"/bare:1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, host+"/bare:1"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "; mirror "+mirror+": it has the bundle, and no signatures") {
		t.Errorf("in the mirror alone: %v", err)
	}
}
