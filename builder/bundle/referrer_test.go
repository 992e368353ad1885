// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/limit"
)

func attachment(kind, data string) Attachment {
	return Attachment{Type: kind, MediaType: PKCS7Type, Data: []byte(data), Annotations: map[string]string{"note": "of " + data}}
}

// signed writes a bundle with two referrers.
func signed(t testing.TB, out string) *Bundle {
	t.Helper()
	b, err := New(content(t, ""))
	if err == nil {
		err = b.Attach(t.Context(), attachment(StatementType, "two"), attachment(AuthenticodeType, "one"))
	}
	if err == nil {
		err = b.Save(t.Context(), out, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func opened(t testing.TB, ref string) *Bundle {
	t.Helper()
	b, err := Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// contents lists the referrers with what they hold.
func contents(t testing.TB, b *Bundle) []string {
	t.Helper()
	var out []string
	for _, r := range b.Referrers() {
		data, err := b.Content(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %s %s", r.Type, data, r.Annotations["note"]))
	}
	return out
}

var twoReferrers = []string{AuthenticodeType + " one of one", StatementType + " two of two"}

func TestAttach(t *testing.T) {
	for _, form := range []string{"oci:", "oci-archive:"} {
		dir := t.TempDir()
		unsigned, err := New(content(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		if err := unsigned.Save(t.Context(), form+dir+"/b", nil); err != nil {
			t.Fatal(err)
		}
		b := opened(t, form+dir+"/b")
		for range 2 { // again changes nothing
			if err := b.Attach(t.Context(), attachment(StatementType, "two"), attachment(AuthenticodeType, "one")); err != nil {
				t.Fatal(err)
			}
		}
		for _, b := range []*Bundle{b, opened(t, form+dir+"/b")} {
			if got := contents(t, b); !slices.Equal(got, twoReferrers) || b.Digest != unsigned.Digest || !b.alone() {
				t.Errorf("%s: %q, %s", form, got, b.Digest)
			}
			if data, err := b.ReadLayer(KernelType); err != nil || !strings.HasPrefix(string(data), "bzImage") {
				t.Errorf("%s: %q, %v", form, data, err)
			}
		}
		// What was attached later is what was attached before it was written.
		signed(t, form+dir+"/at-once")
		if form == "oci:" && snapshot(t, dir+"/b") != snapshot(t, dir+"/at-once") {
			t.Errorf("%s\n%s", snapshot(t, dir+"/b"), snapshot(t, dir+"/at-once"))
		}
		if left, _ := os.ReadDir(dir); len(left) != 2 {
			t.Errorf("left: %v", left)
		}
		// Replacing a bundle with its referrers destroys nothing else.
		if err := unsigned.Save(t.Context(), form+dir+"/b", nil); err != nil {
			t.Error(err)
		}
	}
}

// Attaching keeps what else is in the layout.
func TestAttachBesideOthers(t *testing.T) {
	d := damaged{t, filepath.Join(t.TempDir(), "b")}
	signed(t, d.dir)
	image := []byte(`{"schemaVersion":2,"config":{}}`)
	write(t, d.dir+"/blobs/sha256/"+sha(image), image)
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%s","size":%d,"platform":{"os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"other"}}`,
		types.OCIManifestSchema1, sha(image), len(image))
	d.replace("index.json", `"manifests":[`, `"manifests":[`+entry+",")
	for _, ref := range []string{d.dir, pack(t, d.dir)} {
		b := opened(t, ref)
		if b.alone() {
			t.Error("it is not alone")
		}
		if err := b.Attach(t.Context(), attachment(SigstoreType, "three")); err != nil {
			t.Fatal(err)
		}
		b = opened(t, ref)
		index, err := b.readIndexFile()
		if err != nil || !strings.Contains(string(index), sha(image)) || !strings.Contains(string(index), `"platform":{"os":"linux"}`) || !strings.Contains(string(index), `"other"`) || len(b.Referrers()) != 3 {
			t.Errorf("%s, %v", index, err)
		}
		if r, err := b.store.open("blobs/sha256/" + sha(image)); err != nil {
			t.Error(err)
		} else {
			r.Close()
		}
	}
}

func TestAttachAtOnce(t *testing.T) {
	for _, form := range []string{"oci:", "oci-archive:"} {
		ref := form + t.TempDir() + "/b"
		signed(t, ref)
		var all sync.WaitGroup
		for i := range 8 {
			b := opened(t, ref)
			all.Go(func() {
				if err := b.Attach(t.Context(), attachment(SigstoreType, fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := contents(t, opened(t, ref)); len(got) != 10 {
			t.Errorf("%s %d: %q", form, len(got), got)
		}
	}
}

// A bundle that was replaced after it was opened is not signed for the old one.
func TestAttachToAnother(t *testing.T) {
	for _, form := range []string{"oci:", "oci-archive:"} {
		ref := form + t.TempDir() + "/b"
		b := signed(t, ref)
		old := opened(t, ref)
		c := content(t, "")
		c.Manifest.Name = "new"
		if _, err := writeBundle(ref, c); err != nil {
			t.Fatal(err)
		}
		err := old.Attach(t.Context(), attachment(SigstoreType, "x"))
		if err == nil || !strings.Contains(err.Error(), "the bundle was "+b.Digest.String()) || len(opened(t, ref).Referrers()) != 0 {
			t.Errorf("%s: %v", form, err)
		}
	}
}

// Layouts as other tools leave them.
func TestReferrersOfOthers(t *testing.T) {
	base := filepath.Join(t.TempDir(), "b")
	b := signed(t, base)
	var index ociIndex
	if err := json.Unmarshal(damaged{t, base}.read("index.json"), &index); err != nil || len(index.Manifests) != 2 {
		t.Fatal(err, index)
	}
	put := func(t *testing.T, manifests ...descriptor) string {
		dir := filepath.Join(t.TempDir(), "copy")
		index.Manifests = manifests
		data, err := json.Marshal(index)
		if err := errors.Join(err, os.CopyFS(dir, os.DirFS(base))); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/index.json", data)
		return dir
	}
	top, refs := index.Manifests[0], index.Manifests[1]
	bare := top
	bare.ArtifactType = ""
	tagged := top
	tagged.Annotations = map[string]string{refNameAnnotation: "latest"}
	one, two := b.referrers[0].desc, b.referrers[1].desc
	two.ArtifactType, two.Annotations = "", nil
	for name, manifests := range map[string][]descriptor{
		"without artifact types, as skopeo copies":  {bare, refs},
		"referrers beside the bundle, as oras does": {top, one, two},
		"both":            {one, top, refs, two},
		"under two names": {top, tagged, refs},
	} {
		t.Run(name, func(t *testing.T) {
			got := opened(t, put(t, manifests...))
			if !slices.Equal(contents(t, got), twoReferrers) || !got.alone() {
				t.Errorf("%q", contents(t, got))
			}
		})
	}
	t.Run("index of another bundle's referrers", func(t *testing.T) {
		refs.Annotations = map[string]string{refNameAnnotation: "sha256-" + sha(nil)}
		if got := opened(t, put(t, top, refs)); len(got.Referrers()) != 0 || got.alone() {
			t.Errorf("%q", contents(t, got))
		}
	})
}

func TestReferrersRefused(t *testing.T) {
	manifestOf := func(d damaged, kind string) string {
		b, err := Open(t.Context(), d.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		for _, r := range b.Referrers() {
			if r.Type == kind {
				return blobName(r.Digest)
			}
		}
		t.Fatal("no referrer of type " + kind)
		return ""
	}
	// change changes a referrer with all that names it.
	change := func(d damaged, old, new string) {
		name := manifestOf(d, StatementType)
		var index ociIndex
		if err := json.Unmarshal(d.read("index.json"), &index); err != nil {
			t.Fatal(err)
		}
		refs := blobName(index.Manifests[1].Digest)
		size, refsSize := len(d.read(name)), len(d.read(refs))
		d.replace(name, old, new)
		d.rehash(name, refs, size)
		d.rehash(refs, "index.json", refsSize)
	}
	tests := []struct {
		name   string
		damage func(d damaged)
		want   string
	}{
		{"missing", func(d damaged) { d.remove(manifestOf(d, StatementType)) }, "referrer sha256:"},
		{"flipped", func(d damaged) { d.replace(manifestOf(d, StatementType), "two", "tw0") }, "digest mismatch"},
		{"of another subject", func(d damaged) {
			b := opened(t, d.dir)
			change(d, "sha256:"+b.Digest.Hex, "sha256:"+sha(nil))
		}, "it does not refer to this bundle"},
		{"of no subject", func(d damaged) { change(d, `"subject":`, `"annotations":null,"annotations":`) }, "occurs twice"},
		{"unknown field", func(d damaged) { change(d, `"layers":`, `"lairs":[],"layers":`) }, `unknown field "lairs"`},
		{"two layers", func(d damaged) {
			change(d, `"layers":[`, `"layers":[{"mediaType":"x","digest":"sha256:`+sha(nil)+`","size":0},`)
		}, "has 2 layers, want 1"},
		{"huge", func(d damaged) {
			change(d, `"layers":[{"mediaType":"application/pkcs7-signature",`, `"layers":[{"mediaType":"x","digest":"sha256:`+sha(nil)+`","size":1073741825},{"mediaType":"application/pkcs7-signature",`)
		}, "a blob of 1073741825 bytes"},
		{"of a signature that is missing", func(d damaged) { d.remove("blobs/sha256/" + sha([]byte("two"))) }, "no blob sha256:" + sha([]byte("two"))},
		{"of a signature that was changed", func(d damaged) { write(t, d.dir+"/blobs/sha256/"+sha([]byte("two")), []byte("tvo")) }, "digest mismatch"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := damaged{t, filepath.Join(t.TempDir(), "b")}
			signed(t, d.dir)
			test.damage(d)
			b, err := Open(t.Context(), d.dir)
			if err == nil {
				defer b.Close()
				for _, r := range b.Referrers() {
					_, failed := b.Content(r)
					err = errors.Join(err, failed)
				}
			}
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "referrer") {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	// What is nobody's signature may be anything, and takes nothing from others.
	t.Run("others' artifact", func(t *testing.T) {
		d := damaged{t, filepath.Join(t.TempDir(), "b")}
		signed(t, d.dir)
		change(d, `"artifactType":"`+StatementType+`"`, `"future":{},"artifactType":"application/x"`)
		b := opened(t, d.dir)
		if got := contents(t, b); !slices.Equal(got, []string{AuthenticodeType + " one of one", "application/x two "}) {
			t.Errorf("%q", got)
		}
		if err := b.Save(t.Context(), t.TempDir()+"/copy", nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("damaged ones are not copied", func(t *testing.T) {
		d := damaged{t, filepath.Join(t.TempDir(), "b")}
		signed(t, d.dir)
		d.remove(manifestOf(d, StatementType))
		out := t.TempDir()
		if err := opened(t, d.dir).Save(t.Context(), out+"/copy", nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "referrer sha256:") {
			t.Error(err)
		}
		if left, _ := os.ReadDir(out); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("too large", func(t *testing.T) {
		b, err := New(content(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		huge := attachment("x", "x")
		huge.Annotations["note"] = strings.Repeat("n", limit.Referrer)
		if err := b.Attach(t.Context(), huge); err == nil || !strings.Contains(err.Error(), "larger than 262144 bytes") {
			t.Error(err)
		}
		// Many that are nearly too large are no reason to write what nobody reads.
		for i := range 8 {
			a := attachment("x", fmt.Sprint(i))
			a.Annotations["note"] = strings.Repeat("n", limit.Referrer-2000)
			if err := b.Attach(t.Context(), a); err != nil {
				t.Fatal(err)
			}
		}
		out := t.TempDir() + "/b"
		if err := b.Save(t.Context(), out, nil); err != nil {
			t.Fatal(err)
		}
		if got := opened(t, out); len(got.Referrers()) != 8 {
			t.Errorf("%d referrers", len(got.Referrers()))
		}
	})
	t.Run("waiting for somebody who attaches", func(t *testing.T) {
		for _, form := range []string{"oci:", "oci-archive:"} {
			path := t.TempDir() + "/b"
			signed(t, form+path)
			f, err := os.Open(path)
			if err == nil {
				err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := opened(t, form+path).Attach(ctx, attachment("x", "x")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", form, err)
			}
		}
	})
	t.Run("too many", func(t *testing.T) {
		b, err := New(content(t, ""))
		if err != nil {
			t.Fatal(err)
		}
		for kind, most := range map[string]int{"x": limit.Attachments, StatementType: limit.Signatures} {
			for i := range most {
				if err := b.Attach(t.Context(), attachment(kind, fmt.Sprint(i))); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Attach(t.Context(), attachment(kind, "more")); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("more than %d", most)) {
				t.Error(kind, err)
			}
		}
	})
}
