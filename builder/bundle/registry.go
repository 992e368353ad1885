// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
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

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"
)

// openStore opens what a reference leads to. Without a transport, what exists
// as a file or directory is taken for that.
func openStore(ctx context.Context, ref string) (store, error) {
	transportName, rest := cutTransport(ref)
	if transportName == "docker://" {
		return openRegistry(ctx, rest, silence)
	}
	s, err := openLocal(rest)
	if transportName == "" && errors.Is(err, fs.ErrNotExist) && hasHost(ref) {
		return openRegistry(ctx, ref, silence)
	}
	return s, err
}

// Absolute returns a reference that is good from every directory: paths become absolute.
func Absolute(ref string) (string, error) {
	transport, rest := cutTransport(ref)
	if transport == "docker://" {
		return ref, nil
	}
	if _, err := os.Stat(rest); transport == "" && errors.Is(err, fs.ErrNotExist) && hasHost(ref) {
		return ref, nil
	}
	path, err := filepath.Abs(rest)
	return transport + path, err
}

// hasHost says whether a reference begins with a registry's host, as docker
// tells it from a name on its own.
func hasHost(ref string) bool {
	host, _, ok := strings.Cut(ref, "/")
	return ok && !strings.HasPrefix(host, ".") && (strings.ContainsAny(host, ".:") || host == "localhost")
}

// registryStore shows a bundle and its referrers in a registry as a layout.
type registryStore struct {
	ctx       context.Context
	ref       name.Reference
	puller    *remote.Puller
	pusher    *remote.Pusher
	documents map[string][]byte // files that are here already
	manifests map[string]bool   // blobs that the registry has as manifests
}

func newRegistryStore(ctx context.Context, ref string, silence time.Duration) (*registryStore, error) {
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(patient(silence)),
	}
	s := &registryStore{ctx: ctx, ref: r, documents: map[string][]byte{}, manifests: map[string]bool{}}
	if s.puller, err = remote.NewPuller(options...); err != nil {
		return nil, err
	}
	s.pusher, err = remote.NewPusher(options...)
	return s, err
}

// openRegistry reads the manifest and the list of its referrers. silence is how
// long the registry may say nothing.
func openRegistry(ctx context.Context, ref string, silence time.Duration) (*registryStore, error) {
	s, err := newRegistryStore(ctx, ref, silence)
	if err != nil {
		return nil, err
	}
	top, err := s.puller.Get(ctx, s.ref)
	if err != nil {
		var refused *transport.Error
		if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return nil, err
	}
	var m struct {
		ArtifactType string `json:"artifactType"`
	}
	if json.Unmarshal(top.Manifest, &m) != nil || m.ArtifactType != ArtifactType {
		return nil, fmt.Errorf("%w: it is a %s with artifact type %q, not %q", ErrInvalid, top.MediaType, m.ArtifactType, ArtifactType)
	}
	index := ociIndex{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []descriptor{
		{MediaType: top.MediaType, Digest: top.Digest, Size: top.Size, ArtifactType: ArtifactType},
	}}
	s.documents[blobName(top.Digest)] = top.Manifest
	list, err := s.listReferrers(ctx, top.Digest)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		if d.MediaType != types.OCIManifestSchema1 {
			continue // nothing that carries signatures
		}
		if len(s.manifests) == maxReferrers {
			return nil, fmt.Errorf("%w: more than %d referrers", ErrInvalid, maxReferrers)
		}
		s.manifests[blobName(d.Digest)] = true
		index.Manifests = append(index.Manifests, descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType})
	}
	s.documents["index.json"], err = json.Marshal(index)
	return s, err
}

func (s *registryStore) Close() error { return nil }

func (s *registryStore) open(file string) (io.ReadCloser, error) {
	if data, ok := s.documents[file]; ok {
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	digest := s.ref.Context().Digest("sha256:" + strings.TrimPrefix(file, "blobs/sha256/"))
	if s.manifests[file] {
		d, err := s.puller.Get(s.ctx, digest)
		if err != nil {
			return nil, err
		}
		s.documents[file] = d.Manifest
		return s.open(file)
	}
	return &retryReader{ctx: s.ctx, open: func() (io.ReadCloser, error) {
		layer, err := s.puller.Layer(s.ctx, digest)
		if err != nil {
			return nil, err
		}
		return layer.Compressed()
	}}, nil
}

// tries is how often a blob that breaks off is asked for again. What fails
// before its first byte, the library tries again by itself.
const tries = 3

// retryReader reads a blob from where it broke off. Whether all parts are of
// one blob, its digest tells.
type retryReader struct {
	ctx    context.Context
	open   func() (io.ReadCloser, error)
	body   io.ReadCloser
	done   int64
	failed int
}

func (r *retryReader) Read(p []byte) (int, error) {
	for {
		if r.body == nil {
			body, err := r.open()
			if err != nil {
				return 0, err
			}
			r.body = body
			if _, err := io.CopyN(io.Discard, body, r.done); err != nil && !r.again(err) {
				return 0, err
			} else if err != nil {
				continue
			}
		}
		n, err := r.body.Read(p)
		r.done += int64(n)
		switch {
		case err == nil || err == io.EOF:
			return n, err
		case n > 0: // the error comes again
			return n, nil
		case !r.again(err):
			return 0, err
		}
	}
}

// again says whether to try again, and waits before it.
func (r *retryReader) again(err error) bool {
	if r.failed++; r.failed >= tries || r.ctx.Err() != nil || !broken(err) {
		return false
	}
	r.body.Close()
	r.body = nil
	select {
	case <-r.ctx.Done():
		return false
	case <-time.After(time.Duration(r.failed) * time.Second):
		return true
	}
}

func (r *retryReader) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

// add pushes blobs, then manifests in their order. Indexes are the registry's
// own business, or that of the library, which keeps the referrers' tag.
func (s *registryStore) add(ctx context.Context, files []blob) error {
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
				return s.pusher.Upload(uploads, s.ref.Context(), layer)
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, b := range manifests {
		if err := s.put(ctx, b); err != nil {
			return err
		}
	}
	return s.confirm(ctx, manifests)
}

// Where there is no referrers API, whoever attaches reads the list of referrers
// and writes it anew, so that of two at once one may undo what the other did.
const (
	confirmations = 2 // in a row
	confirmTries  = 20
	confirmPause  = 300 * time.Millisecond // at most
)

// confirm waits until the registry lists the referrers among manifests, and puts
// those again that it lost.
func (s *registryStore) confirm(ctx context.Context, manifests []blob) error {
	subject, referrers, err := referrersAmong(manifests)
	if err != nil || len(referrers) == 0 {
		return err
	}
	repo := s.ref.Context()
	wanted := confirmations
	if _, err := s.puller.Head(ctx, repo.Tag(referrersTag(subject))); err != nil {
		wanted = 1 // it keeps the list itself
	}
	for confirmed, try := 0, 0; ; try++ {
		list, err := s.listReferrers(ctx, subject)
		if err != nil {
			return err
		}
		missing := slices.DeleteFunc(slices.Clone(referrers), func(b blob) bool {
			return slices.ContainsFunc(list, func(d v1.Descriptor) bool { return d.Digest == b.desc.Digest })
		})
		if confirmed++; len(missing) > 0 {
			confirmed = 0
		}
		if confirmed == wanted {
			return nil
		}
		if try == confirmTries {
			return fmt.Errorf("the registry's list of referrers lacks %s: does somebody else attach all the time?", missing[0].desc.Digest)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(confirmPause)):
		}
		for _, b := range missing {
			if err := s.put(ctx, b); err != nil {
				return err
			}
		}
	}
}

// referrersAmong returns the manifests that have a subject, and the subject.
func referrersAmong(manifests []blob) (subject v1.Hash, referrers []blob, err error) {
	for _, b := range manifests {
		data, err := readBlob(b)
		if err != nil {
			return v1.Hash{}, nil, err
		}
		var m struct {
			Subject *descriptor `json:"subject"`
		}
		if err := json.Unmarshal(data, &m); err != nil {
			return v1.Hash{}, nil, err
		}
		if m.Subject != nil {
			subject = m.Subject.Digest
			referrers = append(referrers, b)
		}
	}
	return subject, referrers, nil
}

// listReferrers uses the referrers API, or the tag where there is none.
func (s *registryStore) listReferrers(ctx context.Context, subject v1.Hash) ([]v1.Descriptor, error) {
	index, err := remote.Referrers(s.ref.Context().Digest(subject.String()), remote.WithContext(ctx), remote.Reuse(s.puller))
	if err != nil {
		return nil, fmt.Errorf("listing the referrers: %w", err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("listing the referrers: %w", err)
	}
	return list.Manifests, nil
}

// put pushes a manifest under its digest.
func (s *registryStore) put(ctx context.Context, b blob) error {
	return s.putAs(ctx, s.ref.Context().Digest(b.desc.Digest.String()), b)
}

func (s *registryStore) putAs(ctx context.Context, ref name.Reference, b blob) error {
	data, err := readBlob(b)
	if err != nil {
		return err
	}
	return s.pusher.Put(ctx, ref, manifestBytes{b.desc.MediaType, data})
}

func readBlob(b blob) ([]byte, error) {
	r, err := b.open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// manifestBytes is a manifest to be pushed as it is.
type manifestBytes struct {
	mt   types.MediaType
	data []byte
}

func (m manifestBytes) RawManifest() ([]byte, error)        { return m.data, nil }
func (m manifestBytes) MediaType() (types.MediaType, error) { return m.mt, nil }

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
	if transportName != "docker://" && (transportName != "" || !hasHost(ref)) {
		return ErrReference
	}
	_, err := name.ParseReference(rest)
	return err
}

// Push copies the bundle with its referrers to a registry: HOST/NAME[:TAG], with
// or without docker:// before it. The tag is set last, when all is there. It
// returns where the bundle is by digest: HOST/NAME@DIGEST.
func (b *Bundle) Push(ctx context.Context, ref string, progress Progress) (string, error) {
	where, err := b.push(ctx, ref, silence, progress)
	if err != nil {
		return "", fmt.Errorf("pushing to %q: %w", ref, err)
	}
	return where, nil
}

func (b *Bundle) push(ctx context.Context, ref string, silence time.Duration, progress Progress) (string, error) {
	if err := CheckReference(ref); err != nil {
		return "", err
	}
	_, rest := cutTransport(ref)
	s, err := newRegistryStore(ctx, rest, silence)
	if err != nil {
		return "", err
	}
	where := s.ref.Context().Digest(b.Digest.String())
	_, byDigest := s.ref.(name.Digest)
	if byDigest && s.ref.Name() != where.Name() {
		return "", fmt.Errorf("the bundle's digest is %s", b.Digest)
	}
	files, err := b.files()
	if err != nil {
		return "", err
	}
	if err := s.add(ctx, counted(files, progress)); err != nil {
		return "", err
	}
	if !byDigest {
		err = s.putAs(ctx, s.ref, blob{desc: b.top, open: func() (io.ReadCloser, error) { return b.blob("manifest", b.top) }})
	}
	return where.Name(), err
}
