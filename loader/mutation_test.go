// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/signature"
)

// forged is a signed bundle that an attacker holds, taken apart. pack puts it
// together again with every digest and size made right, and with the referrers
// moved to the bundle as it is then: all that can be forged is forged.
type forged struct {
	oci, config map[string]any
	layers      map[string][]byte // by media type
	referrers   []*forgedReferrer
	originals   [][]byte // documents as they were signed
}

type forgedReferrer struct {
	oci  map[string]any
	data []byte
}

func takeApart(t *testing.T, dir string) *forged {
	t.Helper()
	read := func(desc any) []byte {
		digest := desc.(map[string]any)["digest"].(string)
		data, err := os.ReadFile(filepath.Join(dir, "blobs/sha256", strings.TrimPrefix(digest, "sha256:")))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	f := &forged{layers: map[string][]byte{}}
	parse := func(data []byte) map[string]any {
		f.originals = append(f.originals, data)
		var m map[string]any
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	index, err := os.ReadFile(dir + "/index.json")
	if err != nil {
		t.Fatal(err)
	}
	entries := parse(index)["manifests"].([]any)
	f.oci = parse(read(entries[0]))
	f.config = parse(read(f.oci["config"]))
	for _, l := range f.oci["layers"].([]any) {
		f.layers[l.(map[string]any)["mediaType"].(string)] = read(l)
	}
	for _, d := range parse(read(entries[1]))["manifests"].([]any) {
		r := &forgedReferrer{oci: parse(read(d))}
		r.data = read(r.oci["layers"].([]any)[0])
		f.referrers = append(f.referrers, r)
	}
	return f
}

// pack writes the layout. What a descriptor says is only made right where it is
// a JSON object, and its digest is one that takeApart found.
func (f *forged) pack(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "forged")
	if err := os.MkdirAll(dir+"/blobs/sha256", 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(data []byte) (digest string, size float64) {
		sum := sha256.Sum256(data)
		name := hex.EncodeToString(sum[:])
		if err := os.WriteFile(dir+"/blobs/sha256/"+name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return "sha256:" + name, float64(len(data))
	}
	encode := func(v any) []byte {
		for _, data := range f.originals {
			var same map[string]any
			if json.Unmarshal(data, &same) == nil && reflect.DeepEqual(v, same) {
				return data // with its fields in their order
			}
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	point := func(desc any, data []byte) {
		if d, ok := desc.(map[string]any); ok && d["forged"] == nil {
			d["digest"], d["size"] = put(data)
		} else if ok {
			delete(d, "forged") // as it is, on purpose
			put(data)
		}
	}
	descriptor := func(doc map[string]any) map[string]any {
		d := map[string]any{"mediaType": "application/vnd.oci.image.manifest.v1+json"}
		d["digest"], d["size"] = put(encode(doc))
		if t, ok := doc["artifactType"].(string); ok {
			d["artifactType"] = t
		}
		return d
	}
	point(f.oci["config"], encode(f.config))
	if layers, ok := f.oci["layers"].([]any); ok {
		for _, l := range layers {
			if d, ok := l.(map[string]any); ok {
				mt, _ := d["was"].(string)
				if mt == "" {
					mt, _ = d["mediaType"].(string)
				}
				delete(d, "was")
				point(l, f.layers[mt])
			}
		}
	}
	top := descriptor(f.oci)
	top["artifactType"] = bundle.ArtifactType
	entries := []any{top}
	put([]byte("{}"))
	for _, r := range f.referrers {
		if subject, ok := r.oci["subject"].(map[string]any); ok {
			if subject["forged"] == nil {
				subject["digest"], subject["size"] = top["digest"], top["size"]
			}
			delete(subject, "forged")
		}
		if layers, ok := r.oci["layers"].([]any); ok && len(layers) > 0 {
			point(layers[0], r.data)
		}
		entries = append(entries, descriptor(r.oci))
	}
	index := encode(map[string]any{"schemaVersion": 2, "manifests": entries})
	if err := errors.Join(
		os.WriteFile(dir+"/index.json", index, 0o644), os.WriteFile(dir+"/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	return dir
}

// leaves calls change for every value in a document, with a function that puts
// another in its place. Each call sees a document of its own.
func leaves(path string, v any, set func(any), visit func(path string, v any, set func(any))) {
	visit(path, v, set)
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			leaves(path+"."+k, v[k], func(x any) { v[k] = x }, visit)
		}
	case []any:
		for i := range v {
			leaves(fmt.Sprintf("%s[%d]", path, i), v[i], func(x any) { v[i] = x }, visit)
		}
	}
}

// other is a value of the same type that is not the same.
func other(v any) any {
	switch v := v.(type) {
	case string:
		if hexDigits, ok := strings.CutPrefix(v, "sha256:"); ok { // one that still is a digest
			return "sha256:" + strings.Map(func(r rune) rune { return r ^ 1 }, hexDigits[:8]) + hexDigits[8:]
		}
		if len(v) > 200 { // certificates, around which any text may stand
			return v[:100] + "x" + v[101:]
		}
		return v + "x"
	case float64:
		return v + 1
	case bool:
		return !v
	}
	return nil
}

type mutation struct {
	name   string
	mutate func(f *forged)
}

// documentMutations changes every field of a document, each in a mutation of its
// own, and takes it away, and adds one.
func documentMutations(what string, sample map[string]any, of func(f *forged) map[string]any) []mutation {
	var out []mutation
	leaves(what, sample, nil, func(path string, v any, _ func(any)) {
		if path == what {
			return
		}
		at := func(f *forged, apply func(parent any, v any, set func(any))) {
			leaves(what, of(f), nil, func(p string, v any, set func(any)) {
				if p == path {
					apply(nil, v, set)
				}
			})
		}
		if other(v) != nil {
			out = append(out, mutation{path + " changed", func(f *forged) {
				at(f, func(_ any, v any, set func(any)) { set(other(v)) })
				keep(f, what, path)
			}})
		}
		out = append(out, mutation{path + " null", func(f *forged) {
			at(f, func(_ any, _ any, set func(any)) { set(nil) })
			keep(f, what, path)
		}})
		if list, ok := v.([]any); ok && len(list) > 0 {
			out = append(out, mutation{path + " shorter", func(f *forged) {
				at(f, func(_ any, v any, set func(any)) { set(v.([]any)[1:]) })
			}}, mutation{path + " longer", func(f *forged) {
				at(f, func(_ any, v any, set func(any)) { set(append(v.([]any), v.([]any)[0])) })
			}})
		}
	})
	return append(out, mutation{what + " with one field more", func(f *forged) { of(f)["extra"] = "x" }})
}

// keep marks the descriptor whose digest or size a mutation changed, so that pack
// does not make it right again.
func keep(f *forged, what, path string) {
	parent, field := path[:strings.LastIndexByte(path, '.')], path[strings.LastIndexByte(path, '.')+1:]
	if field == "mediaType" && what == "manifest" && strings.Contains(path, "layers") {
		leaves(what, f.oci, nil, func(p string, v any, _ func(any)) {
			if p == parent {
				d := v.(map[string]any)
				if mt, ok := d["mediaType"].(string); ok {
					d["was"] = strings.TrimSuffix(mt, "x")
				}
			}
		})
	}
	if field != "digest" && field != "size" {
		return
	}
	docs := map[string]any{"manifest": f.oci}
	for i, r := range f.referrers {
		docs[fmt.Sprint("referrer", i)] = r.oci
	}
	leaves(what, docs[what], nil, func(p string, v any, _ func(any)) {
		if p == parent {
			v.(map[string]any)["forged"] = true
		}
	})
}

func flipped(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 1
	return out
}

// mutations lists what an attacker who can write everything but signatures may
// try, one thing at a time.
func mutations(sample, foreign *forged) []mutation {
	out := documentMutations("config", sample.config, func(f *forged) map[string]any { return f.config })
	out = append(out, documentMutations("manifest", sample.oci, func(f *forged) map[string]any { return f.oci })...)
	for _, mt := range slices.Sorted(maps.Keys(sample.layers)) {
		data := sample.layers[mt]
		for _, at := range []int{0, len(data) / 3, len(data) / 2, len(data) - 1} {
			out = append(out, mutation{fmt.Sprintf("layer %s flipped at %d", mt, at), func(f *forged) { f.layers[mt] = flipped(f.layers[mt], at) }})
		}
		out = append(out,
			mutation{"layer " + mt + " cut", func(f *forged) { f.layers[mt] = f.layers[mt][:len(data)-1] }},
			mutation{"layer " + mt + " longer", func(f *forged) { f.layers[mt] = append(bytes.Clone(f.layers[mt]), 0, 0, 0, 0, 0, 0, 0, 0) }},
		)
	}
	for i := range sample.referrers {
		out = append(out, referrerMutations(i, sample, foreign)...)
	}
	return append(out, mutation{"all referrers gone", func(f *forged) { f.referrers = nil }})
}

func referrerMutations(i int, sample, foreign *forged) []mutation {
	kind := sample.referrers[i].oci["artifactType"].(string)
	what := fmt.Sprint("referrer", i)
	out := []mutation{
		{kind + " gone", func(f *forged) { f.referrers = slices.Delete(f.referrers, i, i+1) }},
		{kind + " of another bundle", func(f *forged) { f.referrers[i] = foreign.referrers[i] }},
		{kind + " for another kind", func(f *forged) {
			f.referrers[i].data = f.referrers[(i+1)%len(f.referrers)].data
		}},
		{kind + " empty", func(f *forged) { f.referrers[i].data = nil }},
		{kind + " cut", func(f *forged) { f.referrers[i].data = f.referrers[i].data[:len(f.referrers[i].data)-1] }},
		{kind + " longer", func(f *forged) { f.referrers[i].data = append(bytes.Clone(f.referrers[i].data), 0) }},
		{kind + " huge", func(f *forged) { f.referrers[i].data = make([]byte, 1<<20+1) }},
	}
	data := sample.referrers[i].data
	for step := range 12 {
		at := step * (len(data) - 1) / 11
		out = append(out, mutation{fmt.Sprintf("%s flipped at %d", kind, at), func(f *forged) { f.referrers[i].data = flipped(data, at) }})
	}
	for _, m := range documentMutations(what, sample.referrers[i].oci, func(f *forged) map[string]any { return f.referrers[i].oci }) {
		// What stands in an artifact's descriptors beside digests is nobody's claim.
		if !strings.Contains(m.name, ".config") && !strings.Contains(m.name, "layers[0].mediaType") {
			out = append(out, m)
		}
	}
	return out
}

// objectsOf are what the reason may name: of a changed referrer, its kind alone.
func objectsOf(mutation string, sample *forged) []string {
	for i, r := range sample.referrers {
		for _, kind := range signature.Kinds {
			if kind.Type == r.oci["artifactType"] && (strings.HasPrefix(mutation, kind.Type+" ") || strings.HasPrefix(mutation, fmt.Sprint("referrer", i, "."))) {
				return []string{kind.Name + " signature", "manifest sha256:"} // whose subject is no digest, its manifest
			}
		}
	}
	return []string{"manifest", "layer", "referrer", "signature", "signed", "policy"}
}

// TestMutations: whatever is changed in a signed bundle, it is refused, and the
// reason names an object.
func TestMutations(t *testing.T) {
	path, policy := signedBundle(t, nil)
	foreignPath, _ := signedBundle(t, []byte("another kernel"))
	if v, err := Verify(t.Context(), takeApart(t, path).pack(t), policy, nil); err != nil {
		t.Fatalf("nothing changed: %v", err)
	} else {
		v.Close()
	}
	sample := takeApart(t, path)
	all := mutations(takeApart(t, path), takeApart(t, foreignPath))
	if len(all) < 100 {
		t.Fatalf("%d mutations", len(all))
	}
	t.Logf("%d mutations", len(all))
	for _, m := range all {
		f := takeApart(t, path)
		m.mutate(f)
		v, err := Verify(t.Context(), f.pack(t), policy, nil)
		if err == nil {
			v.Close()
			t.Errorf("%s: taken", m.name)
			continue
		}
		if !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", m.name, err)
		}
		_, reason, _ := strings.Cut(err.Error(), "refused: ")
		if objects := objectsOf(m.name, sample); !slices.ContainsFunc(objects, func(object string) bool { return strings.Contains(reason, object) }) {
			t.Errorf("%s: none of %q in %v", m.name, objects, err)
		}
	}
}
