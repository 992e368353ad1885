// SPDX-License-Identifier: Apache-2.0

package limit_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/registry"
	"github.com/tenon-build/tenon/builder/fidelity"
	loaderlimit "github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/request"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/trust"
	"github.com/tenon-build/tenon/testdata/memory"
)

// most is how much memory a reader may take above the largest document.
const most = 64 << 20

// fill repeats a text up to a size.
func fill(head, text, tail string, size int) []byte {
	n := max(0, size-len(head)-len(tail)) / len(text)
	return []byte(head + strings.TrimSuffix(strings.Repeat(text, n), ",") + tail)
}

func list(t *testing.T, body []byte) func() error {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		if strings.Contains(r.URL.Path, "/referrers/") {
			_, _ = w.Write(body)
		}
	}))
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	return func() error {
		c, err := registry.New(registry.Settings{})
		if err != nil {
			return err
		}
		subject, err := name.NewDigest(strings.TrimPrefix(s.URL, "http://") + "/web@sha256:" + strings.Repeat("0", 64))
		if err == nil {
			_, _, err = c.Referrers(t.Context(), subject)
		}
		return err
	}
}

// TestMemory holds every reader of a stranger's document to its limit in bytes and entries, and
// prints what it takes: of the largest document, of one with the most entries that are read, of
// one full of entries, and of one that is too large.
func TestMemory(t *testing.T) {
	noFile := func(string) ([]byte, error) { return nil, os.ErrNotExist }
	readers := []struct {
		name       string
		size       int
		head, tail string
		entry      string // one of the smallest
		long       string // one that fills the document with text
		values     int    // that are read; 0: they are not counted
		read       func(data []byte) error
	}{
		{"fidelity report", limit.Report, `{"version":2,"changed":[`, `]}`, `{},`, `{"path":"` + strings.Repeat("p", 500) + `"},`, 2 * limit.ReportEntries, func(data []byte) error {
			_, err := fidelity.Decode(bytes.NewReader(data))
			return err
		}},
		{"bundle manifest", manifest.MaxSize, `{"version":2,"parameters":[`, `]}`, `{},`, `{"name":"` + strings.Repeat("p", 500) + `"},`, manifest.MaxSize / 16, func(data []byte) error {
			_, err := manifest.Decode(data)
			return err
		}},
		{"sigstore bundle", sigstore.MaxSize, `{"dsseEnvelope":{"signatures":[`, `]}}`, `{},`, `{"keyid":"` + strings.Repeat("p", 500) + `"},`, sigstore.MaxSize / 64, func(data []byte) error {
			_, err := sigstore.Verify(data, "sha256:"+strings.Repeat("0", 64), nil, nil)
			return err
		}},
		{"signing request", request.MaxSize, `{"items":[`, `]}`, `{},`, `{"kind":"` + strings.Repeat("p", 500) + `"},`, request.MaxSize / 64, func(data []byte) error {
			_, err := request.Parse(data)
			return err
		}},
		{"revocation list", revocation.MaxSize, `{"version":1,"entries":[`, "]}\n-----BEGIN PKCS7-----\n-----END PKCS7-----\n", `{},`, `{"kind":"` + strings.Repeat("p", 500) + `"},`, 0, func(data []byte) error {
			_, _, err := revocation.Parse(data)
			return err
		}},
		{"policy", trust.MaxSize, "version = 1\n", "", "[[bundle]]\n", "[[bundle]]\nnames=[\"" + strings.Repeat("a", 60) + "\"]\n", 0, func(data []byte) error {
			_, err := trust.Parse(data, noFile)
			return err
		}},
		{"policy of unknown keys", trust.MaxSize, "version = 1\n", "", "[[x]]\n", "[[x]]\nx=\"" + strings.Repeat("a", 60) + "\"\n", 0, func(data []byte) error {
			_, err := trust.Parse(data, noFile)
			return err
		}},
		{"certificates", loaderlimit.TrustFile, "", "", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\n" + strings.Repeat("QUFB", 100) + "\n-----END CERTIFICATE-----\n", 0, func(data []byte) error {
			_, err := trust.ParseCertificates(data)
			return err
		}},
		{"list of referrers", limit.Answer, `{"schemaVersion":2,"manifests":[`, `]}`, `{},`, `{"artifactType":"` + strings.Repeat("p", 500) + `"},`, limit.ListValues, func(data []byte) error { return list(t, data)() }},
	}
	for _, r := range readers {
		t.Run(r.name, func(t *testing.T) {
			for what, data := range map[string][]byte{
				"most":    fill(r.head, r.entry, r.tail, len(r.head)+len(r.tail)+len(r.entry)*(r.values/2-8)),
				"entries": fill(r.head, r.entry, r.tail, r.size), "text": fill(r.head, r.long, r.tail, r.size),
				"too large": append(fill(r.head, r.long, r.tail, r.size), bytes.Repeat([]byte("\n"), len(r.long)+1)...),
			} {
				if what == "most" && r.values == 0 {
					continue
				}
				var err error
				used := memory.Peak(func() { err = r.read(data) })
				t.Logf("%-24s %-9s %8d bytes read, %4d MiB taken: %.100s", r.name, what, len(data), used>>20, fmt.Sprint(err))
				if used > uint64(r.size)+most {
					t.Errorf("%s: %d MiB", what, used>>20)
				}
				if regexp.MustCompile(`more than \d+ (values|entries)`).MatchString(fmt.Sprint(err)) != (what == "entries" && r.values > 0) {
					t.Errorf("%s: %v", what, err)
				}
				if err == nil && what != "text" && what != "most" {
					t.Errorf("%s: no error", what)
				}
			}
		})
	}
}
