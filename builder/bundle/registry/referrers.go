// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// ErrNoReferrers says that a registry takes no manifest with a subject (OCI 1.1), or does not
// keep the list of them.
var ErrNoReferrers = errors.New("the registry cannot hold signatures")

// Referrers lists the image manifests whose subject is the one given, without annotations. They come from the referrers
// API, or, where there is none, from the index with the referrers tag, sha256-HEX; see
// referrersTag. api says which of the two it was.
func (c *Client) Referrers(ctx context.Context, subject name.Digest) (list []v1.Descriptor, api bool, err error) {
	client, err := c.HTTP(ctx, subject.Context(), transport.PullScope)
	if err != nil {
		return nil, false, err
	}
	page := address(subject.Context(), "referrers", subject.DigestStr())
	for pages := 0; page != ""; pages++ {
		resp, err := get(ctx, client, page)
		if err != nil {
			return nil, api, err
		}
		index, next, err := readPage(resp)
		if err == nil && index == nil && api {
			err = errors.New("a page of the registry's list of referrers is no index")
		}
		if err != nil {
			return nil, api, err
		}
		if index == nil {
			index, err := c.referrersTag(ctx, client, subject)
			return manifests(index), false, err
		}
		api, page = true, next
		list = append(list, manifests(index)...)
		if len(list) > limit.Listed || pages == limit.Pages {
			return nil, api, fmt.Errorf("%w: more than %d, or more than %d pages", ErrTooMany, limit.Listed, limit.Pages)
		}
	}
	return list, api, nil
}

// manifests are the image manifests of a list. Of each, only what is short is kept: a list
// may have many pages.
func manifests(index *v1.IndexManifest) (out []v1.Descriptor) {
	for _, d := range index.Manifests {
		if d.MediaType != types.OCIManifestSchema1 {
			continue
		}
		if len(d.ArtifactType) > limit.MediaType { // whoever reads the manifest sees which one it is
			d.ArtifactType = ""
		}
		out = append(out, v1.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, ArtifactType: d.ArtifactType})
	}
	return out
}

// Attach pushes a manifest whose subject is the one given, and sees to it that it is listed:
// with the referrers API the registry does so, otherwise it is added to the referrers tag. Of
// two who add at once, one may undo what the other did.
func (c *Client) Attach(ctx context.Context, subject name.Digest, add v1.Descriptor, manifest []byte) error {
	repo := subject.Context()
	if err := c.PutManifest(ctx, repo.Digest(add.Digest.String()), add.MediaType, manifest); err != nil {
		var refused *transport.Error
		if errors.As(err, &refused) && refusesSubject(refused) {
			err = fmt.Errorf("%w: %w", ErrNoReferrers, err)
		}
		return err
	}
	_, api, err := c.Referrers(ctx, subject)
	if err != nil || api {
		return err
	}
	client, err := c.HTTP(ctx, repo, transport.PullScope)
	if err != nil {
		return err
	}
	index, err := c.referrersTag(ctx, client, subject)
	if err != nil || slices.ContainsFunc(index.Manifests, func(d v1.Descriptor) bool { return d.Digest == add.Digest }) {
		return err
	}
	index.SchemaVersion, index.MediaType = 2, types.OCIImageIndex
	index.Manifests = append(index.Manifests, add)
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if len(data) > limit.Answer {
		return fmt.Errorf("tag %s: the list of referrers is larger than %d bytes", tagOf(subject), limit.Answer)
	}
	return c.PutManifest(ctx, repo.Tag(tagOf(subject)), types.OCIImageIndex, data)
}

// refusesSubject says whether a refusal is about a manifest's subject. Amazon ECR before 2024
// said 405 UNSUPPORTED; others take it for an unknown field.
func refusesSubject(e *transport.Error) bool {
	return e.StatusCode == http.StatusMethodNotAllowed || slices.ContainsFunc(e.Errors, func(d transport.Diagnostic) bool {
		return d.Code == transport.UnsupportedErrorCode || d.Code == transport.ManifestInvalidErrorCode
	})
}

// PutManifest pushes a manifest under a tag or its digest.
func (c *Client) PutManifest(ctx context.Context, ref name.Reference, mt types.MediaType, data []byte) error {
	client, err := c.HTTP(ctx, ref.Context(), transport.PushScope)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		err := put(ctx, client, address(ref.Context(), "manifests", ref.Identifier()), mt, data)
		if err == nil || try == tries || !broken(err) && !temporary(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
}

// temporary says whether a registry said that it may do better later.
func temporary(err error) bool {
	var refused *transport.Error
	return errors.As(err, &refused) && refused.Temporary()
}

func put(ctx context.Context, client *http.Client, address string, mt types.MediaType, data []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, address, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", string(mt))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return transport.CheckError(resp, http.StatusOK, http.StatusCreated, http.StatusAccepted)
}

// referrersTag reads the index with the referrers tag. It is empty only where the registry says
// that there is none, or answers with the subject, as GitLab does: whoever attaches replaces
// what was there, and whoever reads would take a bundle for an unsigned one.
func (c *Client) referrersTag(ctx context.Context, client *http.Client, subject name.Digest) (*v1.IndexManifest, error) {
	tag := tagOf(subject)
	resp, err := get(ctx, client, address(subject.Context(), "manifests", tag))
	if err != nil {
		return &v1.IndexManifest{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return &v1.IndexManifest{}, nil
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return &v1.IndexManifest{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return &v1.IndexManifest{}, fmt.Errorf("tag %s: %w", tag, err)
	}
	index, err := parseIndex(resp, data)
	if index != nil || err != nil {
		return cmp.Or(index, &v1.IndexManifest{}), err
	}
	if sum := sha256.Sum256(data); "sha256:"+hex.EncodeToString(sum[:]) != subject.DigestStr() {
		err = fmt.Errorf("tag %s: it is no list of referrers", tag)
	}
	return &v1.IndexManifest{}, err
}

// tagOf is the referrers tag of a manifest.
func tagOf(subject name.Digest) string { return strings.Replace(subject.DigestStr(), ":", "-", 1) }

// address is where a registry has something of a repository.
func address(repo name.Repository, kind, identifier string) string {
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr(), kind, identifier)
}

func get(ctx context.Context, client *http.Client, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", string(types.OCIImageIndex))
	return client.Do(req)
}

// readPage reads an answer, and where its next page is. The index is nil when the answer is
// something else: a registry that does not know the question refuses it, or says 200 with a
// page for people.
func readPage(resp *http.Response) (index *v1.IndexManifest, next string, err error) {
	defer resp.Body.Close()
	if unknown(resp.StatusCode) {
		return nil, "", nil
	}
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, "", err
	}
	if index, err = parseIndex(resp, data); index == nil || err != nil {
		return nil, "", err
	}
	next, err = nextPage(resp)
	return index, next, err
}

// parseIndex returns the index that an answer is, nil where it is something else.
func parseIndex(resp *http.Response, data []byte) (*v1.IndexManifest, error) {
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mt != string(types.OCIImageIndex) {
		return nil, nil
	}
	if err := strictjson.CheckValues(data, limit.ListValues); err != nil {
		return nil, fmt.Errorf("the registry's list of referrers: %w", err)
	}
	index := &v1.IndexManifest{}
	if err := json.Unmarshal(data, index); err != nil {
		return nil, fmt.Errorf("the registry's list of referrers: %w", err)
	}
	if index.MediaType != "" && index.MediaType != types.OCIImageIndex {
		return nil, nil
	}
	return index, nil
}

// unknown are the answers of registries that do not know a question: an unknown path, method
// or kind of content. Harbor before 2.8 says 401 to the referrers API, whoever asks.
func unknown(status int) bool {
	return slices.Contains([]int{
		http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusUnsupportedMediaType, http.StatusNotImplemented,
	}, status)
}

// nextLink is the one of RFC 8288 that leads to the next page.
var nextLink = regexp.MustCompile(`<([^>]*)>\s*;[^,]*\brel="?next\b`)

// nextPage returns where the next page is, which is on the same host; empty: nowhere.
func nextPage(resp *http.Response) (string, error) {
	link := nextLink.FindStringSubmatch(strings.Join(resp.Header.Values("Link"), ", "))
	if link == nil {
		return "", nil
	}
	to, err := url.Parse(link[1])
	if err != nil {
		return "", fmt.Errorf("the registry's list of referrers: next page: %w", err)
	}
	to = resp.Request.URL.ResolveReference(to)
	if to.Host != resp.Request.URL.Host || to.Scheme != resp.Request.URL.Scheme {
		return "", fmt.Errorf("the registry's list of referrers: its next page is on another host, %s", to.Host)
	}
	return to.String(), nil
}
