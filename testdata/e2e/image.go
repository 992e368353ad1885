// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// File is an entry of a test image: a regular file, unless its Header says otherwise.
type File struct {
	tar.Header
	Content []byte
}

// ProbeFiles are in the image that most tests boot: something to drop, and a hard link.
var ProbeFiles = []File{
	{tar.Header{Name: "left-out/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
	{tar.Header{Name: "left-out/file", Mode: 0o644}, []byte("x")},
	{tar.Header{Name: "kept", Mode: 0o4755, Uid: 12, Gid: 34}, []byte("kept")},
	{tar.Header{Name: "linked", Typeflag: tar.TypeLink, Linkname: "kept"}, nil},
}

// Image writes an OCI layout with the probe as its app, and returns a reference to it.
func Image(t T, configure func(*v1.Config), files ...File) string {
	t.Helper()
	return ImageOn(t, empty.Image, configure, files...)
}

// ImageOn does so with a layer on top of an image.
func ImageOn(t T, base v1.Image, configure func(*v1.Config), files ...File) string {
	t.Helper()
	img, err := mutate.AppendLayers(base, layer(t, files))
	if err != nil {
		t.Fatal(err)
	}
	config := v1.Config{Entrypoint: []string{"/bin/probe"}, Env: []string{"PATH=/bin", "FROM=image"}}
	if configure != nil {
		configure(&config)
	}
	if img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: config, RootFS: Must(img.ConfigFile()).RootFS}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "probe-image")
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// layer has the probe and the files.
func layer(t T, files []File) v1.Layer {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probe")
	compile := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/tenon-build/tenon/testdata/probe")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if o := Execute(compile); o.Code != 0 {
		t.Fatalf("building the probe: %s", o)
	}
	files = append([]File{
		{tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "bin/probe", Mode: 0o755}, Must(os.ReadFile(program))},
	}, files...)
	var data bytes.Buffer
	tw := tar.NewWriter(&data)
	for _, f := range files {
		if f.Typeflag == 0 {
			f.Typeflag, f.Size = tar.TypeReg, int64(len(f.Content))
		}
		if err := tw.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(f.Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}
