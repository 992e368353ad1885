// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/signer/regular"
)

// ErrOutputName says that an output's name does not say its form; test with errors.Is.
var ErrOutputName = errors.New("the name ends neither in .cpio nor in .zst")

// FlattenRequest says which image's root file system to write.
type FlattenRequest struct {
	Image     string // reference, as image.Open takes it
	Platform  v1.Platform
	AllowDrop []string  // as of Request
	Output    string    // a file, compressed when its name ends in .zst; empty: ./NAME.cpio.zst
	Stdout    io.Writer // where the archive goes instead, not compressed; nil: to Output
	Limits    rootfs.Limits
	Progress  Progress
}

// FlattenResult describes an initramfs that was written.
type FlattenResult struct {
	Output   string           `json:"output"` // "-" for stdout
	Digest   string           `json:"digest"` // of the output
	Size     int64            `json:"size"`   // of the output, in bytes
	Image    int64            `json:"imageSize"`
	Fidelity *fidelity.Report `json:"fidelity"`
}

// Flatten writes the initramfs of an image alone: no PID 1, no recipe, nothing
// added. So nobody would apply a table of extended attributes, and every one of
// them needs a waiver. A file that stands at the output is replaced when all is
// written; on an error it stays, and nothing is left.
func Flatten(ctx context.Context, req FlattenRequest) (*FlattenResult, error) {
	img, err := openImage(ctx, req.Image, req.Platform, req.Progress)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if req.Output == "" && req.Stdout == nil {
		req.Output = nameOf(img.Name) + ".cpio.zst"
	}
	spool := os.TempDir()
	if req.Stdout == nil {
		if err := regular.CheckOutput(req.Output); err != nil {
			return nil, err
		}
		if !strings.HasSuffix(req.Output, ".cpio") && !strings.HasSuffix(req.Output, ".zst") {
			return nil, fmt.Errorf("writing %q: %w", req.Output, ErrOutputName)
		}
		spool = filepath.Dir(req.Output) // where there has to be room in any case
	}
	c, err := unpack(ctx, img, spool, req.Limits, req.Progress)
	if err != nil {
		return nil, fmt.Errorf("unpacking image %q: %w", req.Image, err)
	}
	defer c.tree.Close()
	err = c.checkPatterns("--allow-drop", req.AllowDrop)
	if err == nil {
		err = c.fit(req.AllowDrop, checkNoXattr)
	}
	if err != nil {
		return nil, fmt.Errorf("image %q: %w", req.Image, err)
	}
	var a *archive
	if req.Stdout != nil {
		req.Output = "-"
		a, err = c.archive(ctx, req.Stdout, false, req.Progress)
	} else {
		a, err = c.archiveFile(ctx, req.Output, req.Progress)
	}
	if err != nil {
		return nil, fmt.Errorf("packing image %q: %w", req.Image, err)
	}
	return &FlattenResult{Output: req.Output, Digest: a.digest, Size: a.size, Image: c.size, Fidelity: c.fidelity}, nil
}

// archiveFile writes the archive to a file.
func (c *content) archiveFile(ctx context.Context, name string, progress Progress) (a *archive, err error) {
	err = regular.Replace(name, func(w io.Writer) error {
		a, err = c.archive(ctx, w, strings.HasSuffix(name, ".zst"), progress)
		return err
	})
	return a, err
}
