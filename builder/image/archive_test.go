// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// packedBy are the forms that docker load, podman and skopeo read, beside xz and bzip2, of which
// Go has no encoder.
var packedBy = map[string]func(io.Writer) (io.WriteCloser, error){
	"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
	"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
}

func packed(t testing.TB, by string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := packedBy[by](&out)
	if err == nil {
		_, err = w.Write(data)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestOpenCompressedArchive(t *testing.T) {
	dir := layoutOf(t, indexOf(t, types.OCIImageIndex, tagged(imageOf(t, "intel", amd64), "v1")))
	config := `{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["sha256:` + hashOf(string(oneFile(t, "intel"))) + `"]}}`
	saved := fileOf(t, "saved.tar", tarOf(t, "c.json", config, "manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]`, "l.tar", string(oneFile(t, "intel"))))
	for transport, plain := range map[string]string{"oci-archive": archiveOf(t, dir), "docker-archive": saved} {
		data, err := os.ReadFile(plain)
		if err != nil {
			t.Fatal(err)
		}
		for by := range packedBy {
			t.Run(transport+" "+by, func(t *testing.T) {
				t.Setenv("TMPDIR", t.TempDir())
				whole := packed(t, by, data)
				var read int64
				img, err := Open(t.Context(), transport+":"+fileOf(t, "a.tar", whole), amd64, func(n int64) { read += n })
				if err != nil {
					t.Fatal(err)
				}
				img.Close()
				if got, _, err := who(t, transport+":"+fileOf(t, "a.tar", whole), amd64); got != "intel" || err != nil || read < int64(len(whole)) {
					t.Errorf("%q, %v, %d of %d bytes reported", got, err, read, len(whole))
				}
				cut := fileOf(t, "cut.tar", whole[:len(whole)-6])
				if _, err := Open(t.Context(), transport+":"+cut, amd64, silent); !contains(err, "unpacking "+cut) {
					t.Errorf("cut short: %v", err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if _, err := Open(ctx, transport+":"+fileOf(t, "a.tar", whole), amd64, silent); !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
				if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
					t.Errorf("left: %v, %v", left, err)
				}
			})
		}
		for _, program := range []string{"xz", "bzip2"} {
			if _, err := exec.LookPath(program); err != nil {
				continue
			}
			file := filepath.Join(t.TempDir(), "a.tar")
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(program, "-c", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := who(t, transport+":"+fileOf(t, "a.tar", out), amd64); got != "intel" || err != nil {
				t.Errorf("%s %s: %q, %v", transport, program, got, err)
			}
		}
	}
}

// What unpacks to many times its size would fill the disk.
func TestOpenArchiveBomb(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1 GiB of nothing")
	}
	t.Setenv("TMPDIR", t.TempDir())
	var bomb bytes.Buffer
	w, err := zstd.NewWriter(&bomb)
	for range 1<<10 + 1 {
		if err == nil {
			_, err = w.Write(make([]byte, 1<<20))
		}
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), "oci-archive:"+fileOf(t, "bomb.tar.zst", bomb.Bytes()), amd64, silent); !contains(err, "more than 1073741824 bytes come out of") {
		t.Errorf("got %v", err)
	}
}
