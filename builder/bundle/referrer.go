// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// Referrer is an OCI artifact whose subject is the bundle: a signature, or
// whatever else somebody attached. Anyone can attach one.
type Referrer struct {
	Type        string // artifact type
	Digest      v1.Hash
	Annotations map[string]string // of signatures
	Err         error             // why it cannot be read; wraps ErrInvalid
	unread      bool              // what it consists of is not known yet: see isForeign
	desc        descriptor
	config      descriptor
	layers      []descriptor
}

// Attachment is what a new referrer is made of.
type Attachment struct {
	Type        string          // artifact type
	MediaType   types.MediaType // of Data
	Data        []byte          // the one layer
	Annotations map[string]string
}

// emptyType is the media type of OCI's empty JSON object, the config of
// artifacts that have none.
const emptyType types.MediaType = "application/vnd.oci.empty.v1+json"

// refNameAnnotation names a manifest in the index of a layout.
const refNameAnnotation = "org.opencontainers.image.ref.name"

// referrersTag is the tag under which an index of the referrers stands where
// there is no referrers API: the "referrers tag schema" of OCI's distribution
// specification. Layouts are laid out as if they were such a registry.
func referrersTag(bundle v1.Hash) string { return bundle.Algorithm + "-" + bundle.Hex }

// referrerManifest is an OCI image manifest with all its fields.
type referrerManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     types.MediaType   `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// Referrers lists what refers to the bundle, ordered by type and digest.
func (b *Bundle) Referrers() []Referrer { return slices.Clone(b.referrers) }

// Content returns the one layer of a signature, at most 1 MiB.
func (b *Bundle) Content(r Referrer) ([]byte, error) {
	if r.Err != nil {
		return nil, r.Err
	}
	if len(r.layers) != 1 {
		return nil, fmt.Errorf("%w: referrer %s: has %d layers, want 1", ErrInvalid, r.Digest, len(r.layers))
	}
	return b.document("referrer "+r.Digest.String(), r.layers[0], limit.Document)
}

// readReferrers reads the manifests of the referrers: those in the index of the
// referrers' tag, and those that stand beside the bundle.
func (b *Bundle) readReferrers(entries []entry) error {
	if l, ok := b.store.(interface{ referrers() []descriptor }); ok {
		for _, d := range l.referrers() {
			if err := b.readReferrer(d); err != nil {
				return err
			}
		}
	}
	for _, e := range entries {
		var err error
		switch {
		case e.MediaType == types.OCIImageIndex && e.Annotations[refNameAnnotation] == referrersTag(b.Digest):
			err = b.readReferrersIndex(e.descriptor)
		case e.subject == b.Digest:
			err = b.readReferrer(e.descriptor)
		default:
			b.others = append(b.others, e.descriptor)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Bundle) readReferrersIndex(d descriptor) error {
	data, err := b.document("index of the referrers", d, limit.Document)
	if err != nil {
		return err
	}
	var index ociIndex
	if err := strictjson.Decode(data, limit.Document, &index); err != nil {
		return fmt.Errorf("%w: index of the referrers: %w", ErrInvalid, err)
	}
	for _, d := range index.Manifests {
		if err := b.readReferrer(d); err != nil {
			return err
		}
	}
	return nil
}

// isForeign says whether a list's word for a referrer's type tells that it is no signature.
// Some lists have no type, and Harbor before 2.11 lists the config's type, which signatures
// share with others (harbor issue 19867).
func isForeign(listed string) bool {
	return listed != "" && listed != string(emptyType) && !slices.Contains(SignatureTypes, listed)
}

// readReferrer reads a referrer's manifest. One that is damaged is kept as that:
// anyone can attach one, and it takes nothing from the others. Nor does what is no signature:
// that is not read before it is copied.
func (b *Bundle) readReferrer(d descriptor) error {
	if d.Digest.Algorithm != "sha256" {
		b.leftOut = fmt.Errorf("%w: referrer %s: the digest is not sha256", ErrInvalid, d.Digest)
		return nil
	}
	r := Referrer{Type: d.ArtifactType, Digest: d.Digest, desc: descriptor{MediaType: types.OCIManifestSchema1, Digest: d.Digest, Size: d.Size}}
	if r.unread = isForeign(r.Type); !r.unread {
		if b.looked++; b.looked > limit.Signatures+limit.Attachments {
			return fmt.Errorf("%w: more than %d referrers of which the list does not say that they are no signatures", ErrInvalid, limit.Signatures+limit.Attachments)
		}
		err := b.readReferrerManifest(&r)
		if err != nil && !errors.Is(err, ErrInvalid) {
			return err
		}
		r.Err = err
	}
	r.desc.ArtifactType = r.Type
	err := b.addReferrer(r)
	if errors.Is(err, errAttachments) { // which takes nothing from the signatures
		b.leftOut, err = err, nil
	}
	return err
}

// whole reads of a referrer what was not read yet, for a copy.
func (b *Bundle) whole(r Referrer) (Referrer, error) {
	if r.Err == nil && r.unread {
		r.Err = b.readReferrerManifest(&r)
		r.unread = false
	}
	return r, r.Err
}

func (b *Bundle) readReferrerManifest(r *Referrer) error {
	what := "referrer " + r.Digest.String()
	data, err := b.document(what, r.desc, limit.Referrer)
	if err != nil {
		return err
	}
	m, err := decodeReferrer(data)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrInvalid, what, err)
	case m.SchemaVersion != 2 || m.MediaType != types.OCIManifestSchema1:
		return fmt.Errorf("%w: %s: schema version %d, media type %q: not an OCI manifest", ErrInvalid, what, m.SchemaVersion, m.MediaType)
	case m.Subject == nil || m.Subject.Digest != b.Digest || m.Subject.Size != b.top.Size || m.Subject.MediaType != b.top.MediaType:
		return fmt.Errorf("%w: %s: it does not refer to this bundle", ErrInvalid, what)
	case len(m.Layers) > limit.AttachedBlobs:
		return fmt.Errorf("%w: %s: has more than %d layers", ErrInvalid, what, limit.AttachedBlobs)
	}
	for _, l := range append(m.Layers, m.Config) {
		if l.Size < 0 || l.Size > limit.AttachedBlob || l.Digest.Algorithm != "sha256" {
			return fmt.Errorf("%w: %s: a blob of %d bytes with the digest %s", ErrInvalid, what, l.Size, l.Digest)
		}
	}
	r.Type = cmp.Or(m.ArtifactType, string(m.Config.MediaType))
	r.config, r.layers = m.Config, m.Layers
	if slices.Contains(SignatureTypes, r.Type) {
		r.Annotations = m.Annotations
	}
	return nil
}

// decodeReferrer is strict about signatures, and takes of others' artifacts what
// it takes to carry them.
func decodeReferrer(data []byte) (*referrerManifest, error) {
	var m referrerManifest
	var head struct {
		ArtifactType string `json:"artifactType"`
	}
	err := json.Unmarshal(data, &head)
	switch {
	case err != nil:
	case slices.Contains(SignatureTypes, head.ArtifactType):
		err = strictjson.Decode(data, limit.Referrer, &m)
	default:
		if err = strictjson.CheckValues(data, limit.ReferrerValues); err == nil {
			err = json.Unmarshal(data, &m)
		}
	}
	return &m, err
}

var errAttachments = fmt.Errorf("%w: more than %d referrers that are no signatures", ErrInvalid, limit.Attachments)

// addReferrer keeps the referrers in order, each once.
func (b *Bundle) addReferrer(r Referrer) error {
	at, found := slices.BinarySearchFunc(b.referrers, r, func(a, b Referrer) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Digest.Hex, b.Digest.Hex))
	})
	if found {
		return nil
	}
	signature := slices.Contains(SignatureTypes, r.Type)
	have := 0
	for _, other := range b.referrers {
		if slices.Contains(SignatureTypes, other.Type) == signature {
			have++
		}
	}
	switch {
	case signature && have == limit.Signatures:
		return fmt.Errorf("%w: more than %d signatures", ErrInvalid, limit.Signatures)
	case !signature && have == limit.Attachments:
		return errAttachments
	}
	b.referrers = slices.Insert(b.referrers, at, r)
	return nil
}

// Attach adds referrers where the bundle lies: in its layout or archive, in its
// registry, or, of a bundle that was made by New, in what Save will write. What
// is there already is not added again. Who attaches to a layout or archive at
// the same time waits. Layers that are being read end with an error.
func (b *Bundle) Attach(ctx context.Context, attachments ...Attachment) error {
	if l, ok := b.store.(interface {
		lock(ctx context.Context) (store, func(), error)
	}); ok {
		unlock, err := b.reopen(ctx, l.lock)
		if err != nil {
			return err
		}
		defer unlock()
		if b.leftOut != nil { // the list is written anew here
			return b.leftOut
		}
	}
	var files []blob
	for _, a := range attachments {
		added, err := b.attach(a)
		if err != nil {
			return err
		}
		for _, f := range added {
			if !slices.ContainsFunc(files, func(have blob) bool { return have.name == f.name }) {
				files = append(files, f)
			}
		}
	}
	index, err := b.indexes(b.others)
	if err != nil {
		return err
	}
	return b.store.add(ctx, append(files, index...))
}

// reopen opens the bundle anew when nobody else attaches to it any more:
// somebody may have done so since it was opened.
func (b *Bundle) reopen(ctx context.Context, lock func(context.Context) (store, func(), error)) (unlock func(), err error) {
	s, unlock, err := lock(ctx)
	if err != nil {
		return nil, err
	}
	now := &Bundle{store: s}
	if err = now.read(); err == nil && now.Digest != b.Digest {
		err = fmt.Errorf("the bundle was %s when it was opened, and is %s now", b.Digest, now.Digest)
	}
	if err != nil {
		unlock()
		return nil, errors.Join(err, s.Close())
	}
	old := b.store
	*b = *now
	return unlock, old.Close()
}

func (b *Bundle) attach(a Attachment) ([]blob, error) {
	config, layer := newBlob(emptyType, []byte("{}")), newBlob(a.MediaType, a.Data)
	m := referrerManifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: a.Type,
		Config: config.desc, Layers: []descriptor{layer.desc},
		Subject:     &descriptor{MediaType: b.top.MediaType, Digest: b.Digest, Size: b.top.Size},
		Annotations: a.Annotations,
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	doc := newBlob(m.MediaType, data)
	r := Referrer{Type: a.Type, Digest: doc.desc.Digest, Annotations: a.Annotations, desc: doc.desc, config: m.Config, layers: m.Layers}
	r.desc.ArtifactType = a.Type // without its annotations, of which all together could have too many
	if doc.desc.Size > limit.Referrer || layer.desc.Size > limit.Document {
		return nil, fmt.Errorf("referrer of type %q: its manifest is larger than %d bytes, or its content than %d", a.Type, limit.Referrer, limit.Document)
	}
	return []blob{config, layer, doc}, b.addReferrer(r)
}

// indexes makes the index of the referrers, if there are any, and index.json,
// in which others stand too.
func (b *Bundle) indexes(others []descriptor) ([]blob, error) {
	top := descriptor{
		MediaType: b.top.MediaType, Digest: b.Digest, Size: b.top.Size, ArtifactType: ArtifactType,
		Annotations: map[string]string{refNameAnnotation: cmp.Or(b.top.Annotations[refNameAnnotation], b.Manifest.Name)},
	}
	index := ociIndex{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: append([]descriptor{top}, others...)}
	var files []blob
	if len(b.referrers) > 0 {
		refs := ociIndex{SchemaVersion: 2, MediaType: types.OCIImageIndex}
		for _, r := range b.referrers {
			refs.Manifests = append(refs.Manifests, r.desc)
		}
		data, err := json.Marshal(refs)
		if err == nil && len(data) > limit.Document {
			err = fmt.Errorf("index of the referrers: larger than %d bytes", limit.Document)
		}
		if err != nil {
			return nil, err
		}
		doc := newBlob(types.OCIImageIndex, data)
		files = append(files, doc)
		d := doc.desc
		d.Annotations = map[string]string{refNameAnnotation: referrersTag(b.Digest)}
		index.Manifests = append(index.Manifests, d)
	}
	data, err := json.Marshal(index)
	if err == nil && len(data) > limit.Document {
		err = fmt.Errorf("index.json: larger than %d bytes", limit.Document)
	}
	if err != nil {
		return nil, err
	}
	file := newBlob("", data)
	file.name = "index.json"
	return append(files, file), nil
}
