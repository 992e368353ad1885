// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tenon-build/tenon/builder/bundle/limit"
	"github.com/tenon-build/tenon/builder/bundle/registry"
)

// remoteImage opens an image in a registry, or in the first of its mirrors that has it.
func remoteImage(ctx context.Context, reference string, platform v1.Platform) (*Image, error) {
	client := registry.FromContext(ctx)
	ref, err := client.Parse(reference)
	if err != nil {
		return nil, err
	}
	var img v1.Image
	err = client.FromMirrors(ref, func(source name.Reference) (err error) {
		img, err = remoteSource(ctx, client, source, platform)
		return err
	})
	var refused *transport.Error
	if errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return finish(img, err, ref.Name(), ref.Name(), nil)
}

func remoteSource(ctx context.Context, client *registry.Client, ref name.Reference, platform v1.Platform) (v1.Image, error) {
	options, err := client.Options(ctx, ref.Context().Registry)
	if err != nil {
		return nil, err
	}
	desc, err := remote.Get(ref, options...)
	if err != nil {
		return nil, err
	}
	if !desc.MediaType.IsIndex() {
		return desc.Image()
	}
	if err := checkDocument(desc.Manifest, limit.ImageManifest); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	index, err := desc.ImageIndex()
	if err != nil {
		return nil, err
	}
	im, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	child, err := choose(im.Manifests, platform)
	if err != nil {
		return nil, err
	}
	return index.Image(child.Digest)
}
