// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func TestChoose(t *testing.T) {
	parse := func(s string) *v1.Platform {
		if s == "" {
			return nil
		}
		p, err := v1.ParsePlatform(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	const attestation = "unknown/unknown"
	tests := []struct {
		name  string
		index []string
		want  string // platform
		pick  int    // -1: none
		text  string
	}{
		{"v3 before the plain one", []string{"linux/amd64/v3", "linux/amd64"}, "linux/amd64", 1, ""},
		{"v1 is the plain one", []string{"linux/amd64/v2", "linux/amd64/v1"}, "linux/amd64", 1, ""},
		{"plain is v1", []string{"linux/amd64/v2", "linux/amd64"}, "linux/amd64/v1", 1, ""},
		{"the wanted variant", []string{"linux/amd64", "linux/amd64/v3", "linux/amd64/v4"}, "linux/amd64/v3", 1, ""},
		{"the best below it", []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, "linux/amd64/v3", 1, ""},
		{"only above it", []string{"linux/amd64/v2", "linux/amd64/v3"}, "linux/amd64", -1, "want linux/amd64, the index has linux/amd64/v2, linux/amd64/v3"},
		{"os.version decides nothing", []string{"linux/amd64:5.10", "linux/amd64"}, "linux/amd64", 0, ""},
		{"the first of two", []string{"linux/amd64", "linux/amd64"}, "linux/amd64", 0, ""},
		{"a variant that amd64 does not have", []string{"linux/amd64/v9", "linux/amd64"}, "linux/amd64", 1, ""},
		{"attestation of an image", []string{attestation, "linux/amd64"}, "linux/amd64", 1, ""},
		{"attestation alone", []string{attestation, "linux/arm64/v8"}, "linux/amd64", -1, "the index has linux/arm64/v8"},
		{"nothing but attestations", []string{attestation}, "linux/amd64", -1, "the index has no image"},
		{"one without a platform beside an attestation", []string{attestation, ""}, "linux/amd64", 1, ""},
		{"one without a platform beside the right one", []string{"", "linux/amd64"}, "linux/amd64", 1, ""},
		{"two without a platform", []string{"", ""}, "linux/amd64", -1, "2 without a platform"},
		{"another system", []string{"windows/amd64:10.0", "freebsd/amd64"}, "linux/amd64", -1, "windows/amd64:10.0, freebsd/amd64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var index []v1.Descriptor
			for i, p := range test.index {
				index = append(index, v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: int64(i), Platform: parse(p)})
			}
			got, err := choose(index, *parse(test.want))
			switch {
			case test.pick < 0:
				if !errors.Is(err, ErrPlatform) || !contains(err, test.text) {
					t.Errorf("got %v, %v", got, err)
				}
			case err != nil || got.Size != int64(test.pick):
				t.Errorf("got number %d, %v", got.Size, err)
			}
		})
	}
}

func TestParsePlatform(t *testing.T) {
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "linux/amd64/v1": "linux/amd64", "linux/amd64/v3": "linux/amd64/v3",
		"linux/amd64/v5": "", "linux/amd64/": "", "linux/arm64": "", "linux/amd64:6.1": "", "linux": "", "": "", "Linux/AMD64": "", "amd64": "",
	} {
		p, err := ParsePlatform(in)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q: got %v, %v", in, p, err)
		}
	}
}

// An image's own config says what it is for, also where no index does.
func TestOpenVariant(t *testing.T) {
	v3 := v1.Platform{OS: "linux", Architecture: "amd64", Variant: "v3"}
	img := imageOf(t, "v3", amd64)
	dir := layoutOf(t, indexOf(t, types.OCIImageIndex, child(imageOf(t, "v3", v3), &v3), child(imageOf(t, "plain", amd64), &amd64)))
	alone := layoutOf(t, indexOf(t, types.OCIImageIndex, child(imageOf(t, "v3", v3), nil)))
	unsaid := layoutOf(t, indexOf(t, types.OCIImageIndex, child(img, &v3)))
	for _, test := range []struct {
		dir      string
		platform v1.Platform
		want     string
	}{{dir, amd64, "plain"}, {dir, v3, "v3"}, {alone, v3, "v3"}, {alone, amd64, ""}, {unsaid, v3, "v3"}} {
		got, _, err := who(t, "oci:"+test.dir, test.platform)
		if got != test.want || test.want == "" && !errors.Is(err, ErrPlatform) || test.want != "" && err != nil {
			t.Errorf("%v: got %q, %v", test.platform, got, err)
		}
	}
}
