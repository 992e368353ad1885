// SPDX-License-Identifier: Apache-2.0

// Package builder turns an OCI image into a bundle: a minimal initramfs and a
// kernel tailored to it.
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

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
	Image        string          // reference, as OpenImage takes it
	Platform     v1.Platform     // of the image
	Recipe       *recipes.Recipe // nil: chosen from the image
	Name         string          // of the bundle; empty: from the image's reference
	Version      string          // of the bundle, as manifest.CheckBundleVersion takes it; may be empty
	Target       string          // empty: the recipe's
	Detached     bool
	AllowDrop    []string    // patterns, as recipes.CheckPattern takes them, of files that may lose what an initramfs cannot hold
	KernelSource string      // as kernel.OpenSource takes it
	Appinit      string      // path of the program that becomes PID 1
	Output       string      // as bundle.Save takes it; empty: ./NAME.tenon
	Key          *signer.Key // signs the bundle; nil: nobody does
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
	StageLayers Stage = "layers" // compressed bytes
	StagePack   Stage = "pack"   // bytes of the initramfs before compression
	StageSource Stage = "source" // no unit: unpacking the kernel source
	StageKernel Stage = "kernel" // steps of the kernel's build
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

// ErrTooLarge says that an initramfs cannot be inside a kernel image.
var ErrTooLarge = errors.New("too large to seal")

// maxSealed is the largest compressed initramfs that is embedded. The kernel
// image with it must stay below 1 GiB.
const maxSealed = 900 << 20

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
	img, err := OpenImage(ctx, req.Image, req.Platform)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	m, err := describeImage(&req, img)
	if err != nil {
		return nil, err
	}
	root, err := unpack(ctx, &req, img, work)
	if err != nil {
		return nil, err
	}
	defer root.tree.Close()
	if err := applyRecipe(&req, m, root); err != nil {
		return nil, err
	}
	if req.Output == "" {
		req.Output = m.Name + ".tenon"
	}
	if err := bundle.CheckOutput(req.Output); err != nil {
		return nil, err
	}
	packed, err := pack(ctx, &req, m, root, work)
	if err != nil {
		return nil, err
	}
	if m.Initramfs.Sealed && m.Initramfs.Size > maxSealed {
		return nil, fmt.Errorf("%w: the compressed initramfs has %d MiB, a kernel image takes %d MiB", ErrTooLarge, m.Initramfs.Size>>20, maxSealed>>20)
	}
	k, err := buildKernel(ctx, &req, m, tools, packed)
	if err != nil {
		return nil, err
	}
	return writeBundle(ctx, &req, m, root, packed, k)
}

// nameRE takes what a bundle's name may hold.
var nameRE = regexp.MustCompile(`[^a-z0-9-]+`)

// describeImage starts the manifest with what the image itself says.
func describeImage(req *Request, img *Image) (*manifest.Manifest, error) {
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	m := &manifest.Manifest{
		Version: manifest.Version, Name: req.Name, BundleVersion: req.Version, Platform: req.Platform.String(),
		Image: manifest.Image{Reference: img.Reference, Digest: digest.String()},
		App: manifest.App{
			Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd, Env: config.Config.Env,
			User: config.Config.User, WorkingDir: config.Config.WorkingDir, StopSignal: config.Config.StopSignal,
			Ports: ports(config.Config.ExposedPorts), Health: imageHealth(config.Config.Healthcheck),
			Volumes: volumes(config.Config.Volumes),
		},
	}
	if m.Name == "" {
		m.Name = nameOf(img.Name)
	}
	return m, nil
}

// nameOf makes a bundle's name of an image's Name: its last path element without
// tag, digest and file name extension.
func nameOf(name string) string {
	base := name[strings.LastIndexByte(name, '/')+1:]
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	base = strings.TrimSuffix(base, filepath.Ext(base))
	base = strings.Trim(nameRE.ReplaceAllString(strings.ToLower(base), "-"), "-")
	if base == "" {
		return "app"
	}
	return strings.TrimRight(base[:min(len(base), 63)], "-")
}

// applyRecipe chooses the recipe and completes the manifest with it.
func applyRecipe(req *Request, m *manifest.Manifest, root *content) error {
	r := req.Recipe
	if r == nil {
		static, err := isStatic(root.tree, argv(m.App), m.App)
		if err != nil {
			return err
		}
		if r, err = recipes.Choose(m.App.Entrypoint, m.App.Cmd, static); err != nil {
			return err
		}
		req.Log.Info("recipe chosen from the image", "recipe", r.Name, "description", r.Description)
	}
	req.Recipe = r
	m.Recipe = r.Name
	m.Target = r.Target
	if req.Target != "" {
		m.Target = req.Target
	}
	fillApp(&m.App, r.App)
	if r.Health != nil {
		m.App.Health = r.Health
	}
	if len(argv(m.App)) == 0 {
		return fmt.Errorf("image %q: it has neither an entrypoint nor a command, and neither does recipe %q", req.Image, r.Name)
	}
	m.Parameters = r.Parameters
	m.Claims = r.Claims
	root.dropVolumes(&m.App)
	if err := root.drop(r); err != nil {
		return fmt.Errorf("image %q: %w", req.Image, err)
	}
	if err := root.fit(req.AllowDrop, checkXattr); err != nil {
		return fmt.Errorf("image %q: %w", req.Image, err)
	}
	return nil
}

func argv(a manifest.App) []string {
	return append(a.Entrypoint[:len(a.Entrypoint):len(a.Entrypoint)], a.Cmd...)
}

// fillApp sets what the image leaves empty, or has no field for.
func fillApp(app *manifest.App, from manifest.App) {
	if len(argv(*app)) == 0 {
		app.Entrypoint, app.Cmd = from.Entrypoint, from.Cmd
	}
	for _, e := range from.Env {
		name, _, _ := strings.Cut(e, "=")
		if !slices.ContainsFunc(app.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
			app.Env = append(app.Env, e)
		}
	}
	app.ReadOnly = from.ReadOnly
	for _, field := range []struct{ to, from *string }{
		{&app.User, &from.User}, {&app.WorkingDir, &from.WorkingDir}, {&app.StopSignal, &from.StopSignal},
	} {
		if *field.to == "" {
			*field.to = *field.from
		}
	}
}

func writeBundle(ctx context.Context, req *Request, m *manifest.Manifest, root *content, packed string, k *kernel.Kernel) (*Result, error) {
	report, err := json.Marshal(root.fidelity)
	if err != nil {
		return nil, err
	}
	c := bundle.Content{
		Manifest: m, Fidelity: report,
		Kernel: k.Path("bzImage"), Config: k.Path("config"), SystemMap: k.Path("System.map"),
	}
	if !m.Initramfs.Sealed {
		c.Initramfs = packed
	}
	b, err := bundle.New(c)
	if err != nil {
		return nil, fmt.Errorf("making bundle %q: %w", m.Name, err)
	}
	if req.Key != nil {
		if err := Sign(ctx, b, req.Key); err != nil {
			return nil, err
		}
	}
	if err := b.Save(ctx, req.Output, nil); err != nil {
		return nil, err
	}
	info, err := os.Stat(k.Path("bzImage"))
	if err != nil {
		return nil, err
	}
	return &Result{
		Output: req.Output, Digest: b.Digest, Manifest: m, Fidelity: root.fidelity,
		Image: root.size, Kernel: info.Size(), Symbols: k.Config.Enabled(),
	}, nil
}
