// SPDX-License-Identifier: Apache-2.0

// Package builder turns an OCI image into a bundle: a minimal initramfs and a
// kernel tailored to it.
//
// In: a Request, which names the image and says what to make of it. Out: a bundle on
// disk, and its digest; of Flatten, the initramfs alone. Refused, before anything is
// written to the output: what an initramfs cannot hold, unless the request lets it go;
// files where PID 1 has its own; an app that could not start; kernel options that
// were asked for and dropped; what is too large to seal.
package builder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/recipes"
	"github.com/tenon-build/tenon/signer"
)

// Request says what to build.
type Request struct {
	Image        string          // reference, as image.Open takes it
	Platform     v1.Platform     // of the image
	Recipe       *recipes.Recipe // nil: chosen from the image
	Name         string          // of the bundle; empty: from the image's reference
	Version      string          // of the bundle, as manifest.CheckBundleVersion takes it; may be empty
	Target       manifest.Target // empty: the recipe's
	Detached     bool
	AllowDrop    []string      // patterns, as recipes.CheckPattern takes them, of files that may lose what an initramfs cannot hold
	Allow        []string      // names of package preflight: what would keep the app from starting, and is right when it does
	KernelSource string        // as kernel.OpenSource takes it
	Appinit      string        // path of the program that becomes PID 1
	Driver       kernel.Driver // by which a kernel runs beside a host's
	Output       string        // as bundle.Save takes it; empty: ./NAME.tenon
	Key          *signer.Key   // signs the bundle; nil: nobody does
	Jobs         int
	Tenon        string // version of this program, for the manifest
	Limits       rootfs.Limits
	Cache        *kernel.Cache
	Log          *slog.Logger
	Progress     Progress
}

// Progress receives how far a stage is: done and total are in the stage's unit,
// total is an estimate and 0 when there is none. It is called from several
// goroutines.
type Progress func(stage Stage, done, total int64)

// Stage is a part of a build that takes a while.
type Stage string

// The stages and their units.
const (
	StageOpen   Stage = "open"   // bytes of what is unpacked or hashed before the image is known
	StageLayers Stage = "layers" // compressed bytes
	StagePack   Stage = "pack"   // bytes of the initramfs before compression
	StageSource Stage = "source" // no unit: unpacking the kernel source
	StageConfig Stage = "config" // no unit: resolving the kernel's configuration
	StageKernel Stage = "kernel" // steps of the kernel's build
	StageWrite  Stage = "write"  // bytes of the bundle
)

// Result describes a finished bundle.
type Result struct {
	Output   string
	Digest   v1.Hash
	Manifest *manifest.Manifest
	Fidelity *fidelity.Report
	Image    int64 // bytes of the image's layers, compressed
	Kernel   int64 // bytes of the bzImage
	Symbols  int   // Kconfig symbols that are on
}

// ErrTooLarge says that a target does not take an initramfs.
var ErrTooLarge = errors.New("too large")

// Build makes a bundle. On an error nothing is left but what the cache may
// keep.
func Build(ctx context.Context, req Request) (*Result, error) {
	work, err := req.Cache.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	tools, err := kernel.FindToolchain(ctx)
	if err != nil {
		return nil, err
	}
	img, err := openImage(ctx, req.Image, req.Platform, req.Progress)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	root, err := unpack(ctx, img, work, req.Limits, req.Progress)
	if err != nil {
		return nil, fmt.Errorf("unpacking image %q: %w", req.Image, err)
	}
	defer root.tree.Close()
	p, err := newPlan(&req, img.Name, &config.Config, root.tree)
	if err != nil {
		return nil, err
	}
	output := cmp.Or(req.Output, p.name+".tenon")
	if err := bundle.CheckOutput(output); err != nil {
		return nil, err
	}
	p.app.Volumes = root.keepVolumes(p.app.Volumes)
	if err := root.fill(&req, p); err != nil {
		return nil, fmt.Errorf("image %q: %w", req.Image, err)
	}
	pid1, err := p.initFiles(&req)
	if err != nil {
		return nil, err
	}
	initramfs, err := root.pack(ctx, pid1, work, req.Progress)
	if err != nil {
		return nil, fmt.Errorf("packing image %q: %w", req.Image, err)
	}
	if err := p.form.checkSize(initramfs.description.Size); err != nil {
		return nil, fmt.Errorf("image %q: %w", req.Image, err)
	}
	k, err := compile(ctx, &req, p, tools, initramfs, work)
	if err != nil {
		return nil, err
	}
	m, err := describe(&req, img, p, initramfs, k, tools)
	if err != nil {
		return nil, err
	}
	return write(ctx, &req, output, m, root, initramfs, k)
}
