// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/stream"

	"github.com/tenon-build/tenon/testdata/e2e"
)

const copies = 8

// memory compares the peak memory that 'tenon rootfs' takes for an image of eight times
// nginx's size with what it takes for nginx's: a ratio of 1 says that it does not grow.
func memory(j *job) []series {
	image := e2e.Required(j, "TENON_NGINX_IMAGE")
	j.step("making an image of %d times nginx's size", copies)
	larger, out := j.TempDir(), j.TempDir()
	layer := e2e.Largest(j, image+"/blobs/sha256")
	bytes, err := multiply(larger, layer)
	if err != nil {
		j.Fatalf("making an image of %s: %v", layer, err)
	}
	of := func(name, image string, bytes int64) side {
		return side{fmt.Sprintf("%s, %d MiB of layers", name, bytes>>20), []string{"time"}, func(t e2e.T) sample { return peak(t, image, out) }}
	}
	return []series{{
		unit:    mebibytes,
		rounds:  3,
		subject: of(fmt.Sprintf("%d times nginx's image", copies), larger, bytes),
		peers:   []side{of("nginx's image", image, bytes/copies)},
	}}
}

// peak is the most memory that 'tenon rootfs' had, which writes to that directory. The program time(1) measures
// it: what this process would be told of its own child is never less than what this process
// had itself, as they share memory until the child's program begins.
func peak(t e2e.T, image, dir string) sample {
	t.Helper()
	cmd := e2e.Command(t, "time", "-f", "%M", "-o", dir+"/peak", e2e.Program(t, "tenon"), "rootfs", "oci:"+image,
		"-o", dir+"/out.cpio.zst", "--allow-drop", "**/ping")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // time does not pass it on
	took(t, cmd)
	text, err := os.ReadFile(dir + "/peak")
	if err != nil {
		t.Fatal(err)
	}
	kib, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return sample(kib) << 10
}

// multiply writes an OCI layout whose image has the layer's files several times, each time in
// a folder of its own. It returns the size of the layer's archive.
func multiply(to, layer string) (int64, error) {
	r, w := io.Pipe()
	var bytes counter
	go func() {
		tw := tar.NewWriter(io.MultiWriter(w, &bytes))
		var err error
		for n := range copies {
			if err == nil {
				err = repeat(tw, layer, fmt.Sprint(n))
			}
		}
		w.CloseWithError(errors.Join(err, tw.Close()))
	}()
	defer r.Close()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err == nil {
		img, err = mutate.AppendLayers(img, stream.NewLayer(r, stream.WithCompressionLevel(gzip.BestSpeed)))
	}
	if err != nil {
		return 0, err
	}
	path, err := layout.Write(to, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	return int64(bytes), err
}

// repeat copies a layer's entries into an archive, below a folder.
func repeat(tw *tar.Writer, layer, folder string) error {
	f, err := os.Open(layer)
	if err != nil {
		return err
	}
	defer f.Close()
	unzipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for tr := tar.NewReader(unzipped); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		isDir := strings.HasSuffix(h.Name, "/")
		if h.Name = path.Join(folder, h.Name); isDir {
			h.Name += "/"
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = path.Join(folder, h.Linkname)
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return err
		}
	}
}

// counter counts what is written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }
