// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/registry"
)

// ErrAmbiguous says that a reference to a registry is the path of a file, too; test with
// errors.Is.
var ErrAmbiguous = errors.New("it is a reference to a registry, and there is a file of that name")

// openStore opens what a reference leads to.
func openStore(ctx context.Context, ref string) (store, error) {
	transport, rest, err := locate(ref)
	switch {
	case err != nil:
		return nil, err
	case transport == "docker://":
		return openRegistry(ctx, rest)
	}
	return openLocal(rest)
}

// locate splits a reference into transport and the rest. Without a transport, what begins with
// a registry's host lies in the registry. A file of that name must not take its place, as the
// file would be trusted whatever its bundle's name is.
func locate(ref string) (transport, rest string, err error) {
	transport, rest = cutTransport(ref)
	if transport != "" || !registry.HasHost(ref) {
		return transport, rest, nil
	}
	if _, err := os.Lstat(ref); err == nil {
		return "", "", ErrAmbiguous
	}
	return "docker://", rest, nil
}

// Absolute returns a reference that is good from every directory: paths become absolute.
func Absolute(ref string) (string, error) {
	transport, rest, err := locate(ref)
	if err != nil {
		return "", fmt.Errorf("bundle %q: %w", ref, err)
	}
	if transport == "docker://" {
		return transport + rest, nil // wherever a file of that name may be
	}
	path, err := filepath.Abs(rest)
	return transport + path, err
}

// registryStore shows a bundle in a registry as a layout, and lists its referrers.
type registryStore struct {
	ctx       context.Context
	client    *registry.Client
	ref       name.Reference  // as it was asked for: what is added goes there
	source    name.Repository // where it was found: there, or in a mirror
	puller    *remote.Puller
	documents map[string][]byte // files that are here already
	listed    []descriptor
	manifests map[string]bool // those of them, by the name of the file
}

// openRegistry reads the manifest and the list of its referrers, from the first of the
// registry's mirrors that has both, or from the registry.
func openRegistry(ctx context.Context, reference string) (*registryStore, error) {
	client := registry.FromContext(ctx)
	ref, err := client.Parse(reference)
	if err != nil {
		return nil, err
	}
	var s *registryStore
	err = client.FromMirrors(ref, func(source name.Reference) (err error) {
		s, err = openSource(ctx, client, ref, source)
		if err == nil && len(s.listed) == 0 && source.Context().Registry != ref.Context().Registry {
			err = errors.New("it has the bundle, and no signatures") // many mirrors know no referrers
		}
		return err
	})
	return s, err
}

func openSource(ctx context.Context, client *registry.Client, ref, source name.Reference) (*registryStore, error) {
	s := &registryStore{
		ctx: ctx, client: client, ref: ref, source: source.Context(),
		documents: map[string][]byte{}, manifests: map[string]bool{},
	}
	options, err := client.Options(ctx, s.source.Registry)
	if err == nil {
		s.puller, err = remote.NewPuller(options...)
	}
	if err != nil {
		return nil, err
	}
	if err := judgeAnswer(s.read(source)); err != nil {
		return nil, err
	}
	return s, nil
}

// judgeAnswer wraps in ErrInvalid what says that a registry sent what is no bundle's.
func judgeAnswer(err error) error {
	if errors.Is(err, registry.ErrTooLarge) || errors.Is(err, registry.ErrTooMany) {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return err
}

// read reads the manifest, makes an index of it, and lists its referrers.
func (s *registryStore) read(source name.Reference) error {
	top, err := s.puller.Get(s.ctx, source)
	if err != nil {
		var refused *transport.Error
		if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return err
	}
	var m struct {
		ArtifactType string `json:"artifactType"`
	}
	if json.Unmarshal(top.Manifest, &m) != nil || m.ArtifactType != ArtifactType {
		return fmt.Errorf("%w: it is a %s with artifact type %q, not %q", ErrInvalid, top.MediaType, m.ArtifactType, ArtifactType)
	}
	s.documents[blobName(top.Digest)] = top.Manifest
	index := ociIndex{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []descriptor{
		{MediaType: top.MediaType, Digest: top.Digest, Size: top.Size, ArtifactType: ArtifactType},
	}}
	list, _, err := s.client.Referrers(s.ctx, s.source.Digest(top.Digest.String()))
	if err != nil {
		return fmt.Errorf("listing the referrers: %w", err)
	}
	for _, d := range list {
		s.manifests[blobName(d.Digest)] = true
		s.listed = append(s.listed, descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType})
	}
	s.documents["index.json"], err = json.Marshal(index)
	return err
}

func (s *registryStore) referrers() []descriptor { return s.listed }

func (s *registryStore) Close() error { return nil }

func (s *registryStore) open(file string) (io.ReadCloser, error) {
	if data, ok := s.documents[file]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	digest := s.source.Digest("sha256:" + strings.TrimPrefix(file, "blobs/sha256/"))
	if s.manifests[file] {
		d, err := s.puller.Get(s.ctx, digest)
		if err != nil {
			return nil, judgeAnswer(err)
		}
		return io.NopCloser(bytes.NewReader(d.Manifest)), nil
	}
	layer, err := s.puller.Layer(s.ctx, digest)
	if err != nil {
		return nil, err
	}
	return layer.Compressed()
}

// add pushes blobs, then manifests in their order. Indexes are the registry's
// own business, or that of package registry, which keeps the referrers' tag.
func (s *registryStore) add(ctx context.Context, files []blob) error {
	options, err := s.client.Options(ctx, s.ref.Context().Registry)
	if err != nil {
		return err
	}
	pusher, err := remote.NewPusher(options...)
	if err != nil {
		return err
	}
	group, uploads := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	var manifests []blob
	for _, b := range files {
		switch b.desc.MediaType {
		case "", types.OCIImageIndex:
		case types.OCIManifestSchema1:
			manifests = append(manifests, b)
		default:
			group.Go(func() error {
				layer, err := partial.CompressedToLayer(upload{b})
				if err != nil {
					return err
				}
				return pusher.Upload(uploads, s.ref.Context(), layer)
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	var referrers []referrerBlob
	for _, b := range manifests {
		r, err := readManifestBlob(b)
		if err == nil {
			err = s.put(ctx, r)
		}
		if err != nil {
			return err
		}
		if r.subject != nil {
			referrers = append(referrers, r)
		}
	}
	return s.confirm(ctx, referrers)
}

// Where there is no referrers API, whoever attaches reads the list of referrers
// and writes it anew, so that of two at once one may undo what the other did.
const (
	confirmations = 2 // in a row
	confirmTries  = 20
	confirmPause  = 300 * time.Millisecond // at most
)

// confirm waits until the registry lists the referrers, and puts those again that it lost.
func (s *registryStore) confirm(ctx context.Context, referrers []referrerBlob) error {
	if len(referrers) == 0 {
		return nil
	}
	for confirmed, try := 0, 0; ; try++ {
		list, api, err := s.client.Referrers(ctx, s.ref.Context().Digest(referrers[0].subject.Digest.String()))
		if err != nil {
			return fmt.Errorf("listing the referrers: %w", err)
		}
		missing := slices.DeleteFunc(slices.Clone(referrers), func(r referrerBlob) bool {
			return slices.ContainsFunc(list, func(d v1.Descriptor) bool { return d.Digest == r.desc.Digest })
		})
		if confirmed++; len(missing) > 0 {
			confirmed = 0
		}
		if confirmed == confirmations || confirmed > 0 && api { // the registry itself keeps the list
			return nil
		}
		if try == confirmTries {
			return fmt.Errorf("%w: its list of what refers to the bundle still lacks %s", registry.ErrNoReferrers, missing[0].desc.Digest)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(confirmPause)):
		}
		for _, r := range missing {
			if err := s.put(ctx, r); err != nil {
				return err
			}
		}
	}
}

// referrerBlob is a manifest that is pushed, with what the list of referrers says of it.
type referrerBlob struct {
	desc    v1.Descriptor
	subject *descriptor
	data    []byte
}

func readManifestBlob(b blob) (referrerBlob, error) {
	out := referrerBlob{desc: v1.Descriptor{MediaType: b.desc.MediaType, Digest: b.desc.Digest, Size: b.desc.Size}}
	r, err := b.open()
	if err != nil {
		return out, err
	}
	defer r.Close()
	if out.data, err = io.ReadAll(r); err != nil {
		return out, err
	}
	var m referrerManifest
	if err := json.Unmarshal(out.data, &m); err != nil {
		return out, err
	}
	out.subject = m.Subject
	out.desc.ArtifactType, out.desc.Annotations = cmp.Or(m.ArtifactType, string(m.Config.MediaType)), m.Annotations
	return out, nil
}

// put pushes a manifest under its digest.
func (s *registryStore) put(ctx context.Context, r referrerBlob) error {
	repo := s.ref.Context()
	if r.subject != nil {
		return s.client.Attach(ctx, repo.Digest(r.subject.Digest.String()), r.desc, r.data)
	}
	return s.client.PutManifest(ctx, repo.Digest(r.desc.Digest.String()), r.desc.MediaType, r.data)
}

// upload is a blob to be pushed as it is.
type upload struct{ blob }

func (u upload) Digest() (v1.Hash, error)            { return u.desc.Digest, nil }
func (u upload) Size() (int64, error)                { return u.desc.Size, nil }
func (u upload) MediaType() (types.MediaType, error) { return u.desc.MediaType, nil }
func (u upload) Compressed() (io.ReadCloser, error)  { return u.open() }

// ErrReference says that a reference names no place in a registry.
var ErrReference = errors.New("not a reference to a registry: want HOST/NAME:TAG")

// CheckReference says whether Push takes a reference.
func CheckReference(ref string) error {
	transportName, rest := cutTransport(ref)
	if transportName != "docker://" && (transportName != "" || !registry.HasHost(ref)) {
		return ErrReference
	}
	_, err := name.ParseReference(rest)
	return err
}

// Push copies the bundle with its referrers to a registry: HOST/NAME[:TAG], with
// or without docker:// before it. The tag is set last, when all is there. It
// returns where the bundle is by digest: HOST/NAME@DIGEST.
func (b *Bundle) Push(ctx context.Context, ref string, progress Progress) (string, error) {
	where, err := b.push(ctx, ref, progress)
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", ref, err)
	}
	return where, nil
}

func (b *Bundle) push(ctx context.Context, reference string, progress Progress) (string, error) {
	if err := CheckReference(reference); err != nil {
		return "", err
	}
	_, rest := cutTransport(reference)
	client := registry.FromContext(ctx)
	ref, err := client.Parse(rest)
	if err != nil {
		return "", err
	}
	where := ref.Context().Digest(b.Digest.String())
	_, byDigest := ref.(name.Digest)
	if byDigest && ref.Name() != where.Name() {
		return "", fmt.Errorf("the bundle's digest is %s", b.Digest)
	}
	files, err := b.files()
	if err != nil {
		return "", err
	}
	s := &registryStore{ctx: ctx, client: client, ref: ref}
	if err := s.add(ctx, counted(files, progress)); err != nil {
		return "", err
	}
	if !byDigest {
		var top []byte
		if top, err = b.document("manifest", b.top, limit.Document); err == nil {
			err = client.PutManifest(ctx, ref, b.top.MediaType, top)
		}
	}
	return where.Name(), err
}

// Repository says where in a registry the bundle was asked for, as HOST/NAME; it is empty
// when it was not.
func (b *Bundle) Repository() string {
	if s, ok := b.store.(*registryStore); ok {
		return registry.Known(s.ref.Context())
	}
	return ""
}
