// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package rootfs_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/tenon-build/tenon/testdata/corpus"
	"github.com/tenon-build/tenon/testdata/corpus/scan"
)

// TestE2EUmoci asks umoci what every image of the corpus unpacks to. Where the
// corpus says that umoci is wrong, it must be.
func TestE2EUmoci(t *testing.T) {
	agree, differ := 0, 0
	for _, c := range corpus.Cases() {
		if c.Refused != "" {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			files, err := umoci(t, c)
			problem := corpus.Diff(comparable(c, files), comparable(c, c.Want))
			if err != nil {
				problem = err.Error()
			}
			switch {
			case c.Umoci == "" && problem != "":
				t.Error(problem)
			case c.Umoci != "" && problem == "":
				t.Errorf("umoci is right now, and was not because it %s", c.Umoci)
			case c.Umoci != "":
				differ++
				t.Logf("umoci %s: %.300s", c.Umoci, problem)
			default:
				agree++
			}
		})
	}
	t.Logf("umoci agrees about %d images, and is wrong about %d", agree, differ)
}

func umoci(t *testing.T, c corpus.Case) ([]scan.File, error) {
	t.Helper()
	img, err := c.Image()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(filepath.Join(dir, "image"), empty.Index)
	if err == nil {
		err = path.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "case"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(dir, "root")
	cmd := exec.Command("umoci", "raw", "unpack", "--image", filepath.Join(dir, "image")+":case", root)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	files, err := scan.Dir(root, true)
	if err != nil {
		t.Fatal(err)
	}
	return files, nil
}

// comparable leaves out what no rule decides: the time of a folder that no
// layer has.
func comparable(c corpus.Case, files []scan.File) []scan.File {
	files = slices.Clone(files)
	for i := range files {
		if slices.Contains(c.Implied, files[i].Path) {
			files[i].Time = 0
		}
	}
	return files
}
