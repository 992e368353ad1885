// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/builder/preflight"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader/cokernel/guest"
	"github.com/tenon-build/tenon/recipes"
)

var errNoAppinit = errors.New("PID 1 (appinit) not found")

type buildOptions struct {
	recipe, output, target, source, name, version, cacheDir, format string

	trustCache bool

	image    imageOptions
	detached bool
	key      keyOptions
	tag      string
	push     bool
	jobs     int
	allow    []string
}

func newBuildCmd(a *app) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:   "build IMAGE",
		Short: "Build a bundle from an OCI image",
		Long: `Build a bundle from an OCI image and print its digest.

IMAGE is a registry reference (with the credentials of the docker keychain),
or oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REF], dir:ROOTFS.

The kernel is sealed by default: it holds its command line and the digest of its
initramfs, and stops with another one, so that a signature over it covers all
that will run. --detached makes the weaker form.`,
		Example: `  tenon build oci:redis-image -o redis.tenon --key keys/signing.key
  tenon build registry.example/team/app:1.4 -r ./app.toml --detached`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.build(cmd, args[0], o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.recipe, "recipe", "r", "", "recipe: a name from 'tenon recipe ls' or a file (default: chosen from the image)")
	f.StringVarP(&o.output, "output", "o", "", "oci:DIR or oci-archive:FILE (default ./NAME.tenon)")
	f.StringVar(&o.name, "name", "", "name of the bundle (default: from the image's reference)")
	f.StringVar(&o.version, "bundle-version", "", "semantic version of the bundle, for example 1.4.0: hosts refuse an older one than they saw")
	f.StringVar(&o.target, "target", "", "back end to build for: "+manifest.TargetNames()+" (default: the recipe's)")
	f.StringVar(&o.source, "kernel-source", "debian:6.1", "debian:VERSION, a tarball or a folder")
	f.BoolVar(&o.detached, "detached", false, "a kernel that takes any initramfs and command line: the weaker form")
	o.key.flags(f)
	f.StringVarP(&o.tag, "tag", "t", "", "where --push copies the bundle to: HOST/NAME[:TAG]")
	f.BoolVar(&o.push, "push", false, "copy the bundle to a registry too")
	cmd.MarkFlagsRequiredTogether("tag", "push")
	f.IntVarP(&o.jobs, "jobs", "j", runtime.NumCPU(), "processes of the compiler at once")
	o.image.flags(f)
	f.StringSliceVar(&o.allow, "allow", nil, "build an app that could not start as the image is, where that comes right at run time: "+strings.Join(preflight.Names, ", ")+" (repeatable)")
	f.StringVar(&o.cacheDir, "cache-dir", os.Getenv("TENON_CACHE"), "folder of the build cache, also $TENON_CACHE (default ~/.cache/tenon)")
	f.BoolVar(&o.trustCache, "trust-cache-dir", false, "use the build cache even when others can write to it, also $"+trustCacheVariable+"=true: what they write there can get into kernels")
	f.StringVar(&o.format, "format", "text", "text or json")
	return cmd
}

// trustCacheVariable is --trust-cache-dir for CI systems, which set it once for all jobs.
const trustCacheVariable = "TENON_TRUST_CACHE_DIR"

func (a *app) build(cmd *cobra.Command, image string, o buildOptions) (err error) {
	if value := os.Getenv(trustCacheVariable); value != "" && !cmd.Flags().Changed("trust-cache-dir") {
		if o.trustCache, err = strconv.ParseBool(value); err != nil {
			return cli.Exit(cli.ExitUsage, fmt.Errorf("$%s is %q: must be true or false", trustCacheVariable, value))
		}
	}
	req, err := a.buildRequest(cmd.Context(), image, o)
	if err != nil {
		return err
	}
	cache := kernel.CacheOptions{Dir: o.cacheDir, TrustDir: o.trustCache, Waiting: func(what string) { a.Log.Info("waiting for " + what) }}
	if req.Cache, err = kernel.OpenCache(cmd.Context(), cache); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, req.Cache.Close()) }()
	bars := newBars(a.screen)
	req.Progress, req.Log = bars.update, a.Log
	started := time.Now()
	result, err := builder.Build(cmd.Context(), req)
	bars.done(err == nil)
	if err != nil {
		return err
	}
	if !result.Manifest.Initramfs.Sealed {
		a.Log.Warn("detached: a signature over the kernel does not cover the initramfs and the command line")
	}
	if o.push {
		if _, err := a.push(cmd.Context(), result.Output, o.tag); err != nil {
			return err
		}
	}
	if o.format == "json" {
		return a.PrintJSON(buildOutput(result))
	}
	summary(a, result, time.Since(started))
	if req.Key != nil {
		a.saySigned(req.Key)
	} else {
		fmt.Fprintln(a.Stderr, "signed     no: 'tenon sign' does that")
	}
	_, err = fmt.Fprintln(a.Stdout, result.Digest)
	return err
}

func (a *app) buildRequest(ctx context.Context, image string, o buildOptions) (builder.Request, error) {
	req := builder.Request{
		Image: image, Name: o.name, Version: o.version, Target: manifest.Target(o.target), Detached: o.detached, KernelSource: o.source,
		Output: o.output, Jobs: o.jobs, Tenon: cli.Version(), AllowDrop: o.image.allowDrop, Allow: o.allow,
	}
	if err := cli.CheckFormat(o.format); err != nil {
		return req, err
	}
	if o.jobs < 1 {
		return req, cli.Exit(cli.ExitUsage, fmt.Errorf("--jobs %d: must be at least 1", o.jobs))
	}
	for _, name := range o.allow {
		if !slices.Contains(preflight.Names, name) {
			return req, cli.Exit(cli.ExitUsage, fmt.Errorf("--allow %q is none of %s", name, strings.Join(preflight.Names, ", ")))
		}
	}
	var err error
	if req.Platform, req.Limits, err = o.image.parse(); err != nil {
		return req, err
	}
	if err := checkTarget(req.Target); err != nil {
		return req, err
	}
	if err := manifest.CheckBundleVersion(o.version); err != nil {
		return req, cli.Exit(cli.ExitUsage, fmt.Errorf("--bundle-version: %w", err))
	}
	if o.push {
		if err := bundle.CheckReference(o.tag); err != nil {
			return req, cli.Exit(cli.ExitUsage, fmt.Errorf("--tag %q: %w", o.tag, err))
		}
	}
	if o.key.key != "" {
		if req.Key, err = a.openKey(ctx, &o.key); err != nil {
			return req, err
		}
	} else if o.key.cert != "" {
		return req, cli.Exit(cli.ExitUsage, errors.New("--cert without --key"))
	}
	if o.recipe != "" {
		if req.Recipe, err = recipes.Open(o.recipe); err != nil {
			return req, err
		}
	}
	req.Driver = kernel.Driver{Name: guest.Name, Files: guest.Files()}
	req.Appinit, err = findAppinit()
	return req, err
}

func checkTarget(target manifest.Target) error {
	if target == "" || slices.Contains(manifest.Targets, target) {
		return nil
	}
	return cli.Exit(cli.ExitUsage, fmt.Errorf("--target %q is none of %v", target, manifest.Targets))
}

// findAppinit returns the path of PID 1, which is installed beside tenon.
func findAppinit() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	for _, dir := range []string{".", "../libexec/tenon"} {
		path := filepath.Join(filepath.Dir(self), dir, "appinit")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w beside %s", errNoAppinit, self)
}

// output is the JSON form of a build's result.
type output struct {
	Output    string             `json:"output"`
	Digest    string             `json:"digest"`
	ImageSize int64              `json:"imageSize"`
	Kernel    int64              `json:"kernelSize"`
	Symbols   int                `json:"symbols"`
	Manifest  *manifest.Manifest `json:"manifest"`
	Fidelity  *fidelity.Report   `json:"fidelity"`
}

func buildOutput(r *builder.Result) output {
	return output{r.Output, r.Digest.String(), r.Image, r.Kernel, r.Symbols, r.Manifest.Masked(), r.Fidelity}
}

// summary tells people what was built.
func summary(a *app, r *builder.Result, took time.Duration) {
	m := r.Manifest
	form := "detached"
	if m.Initramfs.Sealed {
		form = "sealed"
	}
	fmt.Fprintf(a.Stderr, "bundle     %s (%s for %s)\n", r.Output, m.Name, m.Target)
	fmt.Fprintf(a.Stderr, "image      %s\n", size(r.Image))
	fmt.Fprintf(a.Stderr, "initramfs  %s, %d entries, %s\n", size(m.Initramfs.Size), m.Initramfs.Entries, form)
	fmt.Fprintf(a.Stderr, "kernel     Linux %s, %s, %d options\n", m.Kernel.Release, size(r.Kernel), r.Symbols)
	fmt.Fprintf(a.Stderr, "memory     at least %s\n", size(m.Claims.Memory.Min))
	a.sayFidelity(r.Fidelity)
	fmt.Fprintf(a.Stderr, "took       %.1f s\n", took.Seconds())
}

func size(n int64) string {
	return units.CustomSize("%.4g %s", float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB"})
}
