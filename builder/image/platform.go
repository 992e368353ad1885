// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// variants are the levels of amd64, each of which runs what is made for those before it.
var variants = []string{"v1", "v2", "v3", "v4"}

// ParsePlatform reads linux/amd64, or linux/amd64/VARIANT with a variant from v1 to v4. v1
// is the same as none. All else is an error: no kernel can be built for it.
func ParsePlatform(s string) (v1.Platform, error) {
	p := v1.Platform{OS: "linux", Architecture: "amd64"}
	if s == p.String() {
		return p, nil
	}
	variant, ok := strings.CutPrefix(s, p.String()+"/")
	if !ok || !slices.Contains(variants, variant) {
		return p, fmt.Errorf("%q is neither linux/amd64 nor linux/amd64/VARIANT with a variant from %s to %s", s, variants[0], variants[len(variants)-1])
	}
	if variant != variants[0] {
		p.Variant = variant
	}
	return p, nil
}

// rank says how well an image for the platform have fits one that is wanted: the higher the
// better, below 0 not at all. This is containerd's order (platforms.Only): the wanted variant,
// then those below it. On Linux os.version and os.features decide nothing.
func rank(have, want v1.Platform) int {
	if have.OS != want.OS || have.Architecture != want.Architecture {
		return -1
	}
	level := func(p v1.Platform) int { return slices.Index(variants, cmp.Or(p.Variant, variants[0])) }
	switch {
	case have.Variant == want.Variant: // also where we know of none, as of another architecture
		return len(variants)
	case level(have) > level(want):
		return -1
	}
	return level(have)
}

// choose picks the manifest that fits platform best, the first of several. One without a
// platform is taken when it is the only one, and no other fits: its config says what it is for.
func choose(manifests []v1.Descriptor, platform v1.Platform) (v1.Descriptor, error) {
	var have []string
	var nameless []v1.Descriptor
	best, found := -1, v1.Descriptor{}
	for _, d := range manifests {
		switch {
		case !d.MediaType.IsImage() && !d.MediaType.IsIndex():
			continue
		case d.Platform == nil:
			nameless = append(nameless, d)
			continue
		}
		if r := rank(*d.Platform, platform); r > best {
			best, found = r, d
		}
		if name := d.Platform.String(); d.Platform.OS != "unknown" && !slices.Contains(have, name) { // attestations have no system
			have = append(have, name)
		}
	}
	switch {
	case best >= 0:
		return found, nil
	case len(nameless) == 1:
		return nameless[0], nil
	case len(nameless) > 1:
		have = append(have, fmt.Sprintf("%d without a platform", len(nameless)))
	}
	return v1.Descriptor{}, fmt.Errorf("%w: want %s, the index has %s", ErrPlatform, platform, cmp.Or(strings.Join(have, ", "), "no image"))
}
