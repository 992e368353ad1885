// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/docker/go-units"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/pflag"

	"github.com/tenon-build/tenon/builder/image"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/recipes"
)

// imageOptions say how an image is read.
type imageOptions struct {
	platform, maxSize string
	maxEntries        int
	maxRatio          int64
	allowDrop         []string
}

func (o *imageOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.platform, "platform", "linux/amd64", "platform of the image")
	f.IntVar(&o.maxEntries, "max-entries", rootfs.DefaultLimits.Entries, "refuse images with more files than this")
	f.StringVar(&o.maxSize, "max-size", units.BytesSize(float64(rootfs.DefaultLimits.Bytes)), "refuse images that unpack to more than this")
	f.Int64Var(&o.maxRatio, "max-ratio", rootfs.DefaultLimits.Ratio, "refuse layers of more than 1GiB that unpack to more than this many times their size")
	f.StringArrayVar(&o.allowDrop, "allow-drop", nil, "files, as a pattern such as 'usr/bin/*', that may lose what an initramfs cannot hold (repeatable)")
}

// parse checks the flags.
func (o *imageOptions) parse() (v1.Platform, rootfs.Limits, error) {
	fail := func(format string, args ...any) (v1.Platform, rootfs.Limits, error) {
		return v1.Platform{}, rootfs.Limits{}, cli.Exit(cli.ExitUsage, fmt.Errorf(format, args...))
	}
	platform, err := image.ParsePlatform(o.platform)
	if err != nil {
		return fail("--platform: %w", err)
	}
	bytes, err := units.RAMInBytes(o.maxSize)
	switch {
	case err != nil || bytes < 1 || bytes > 1<<60:
		return fail("--max-size %q is not a size such as 16GiB", o.maxSize)
	case o.maxEntries < 1:
		return fail("--max-entries %d: must be at least 1", o.maxEntries)
	case o.maxRatio < 1:
		return fail("--max-ratio %d: must be at least 1", o.maxRatio)
	}
	for _, pattern := range o.allowDrop {
		if err := recipes.CheckPattern(pattern); err != nil {
			return fail("--allow-drop: %w", err)
		}
	}
	return platform, rootfs.Limits{Entries: o.maxEntries, Bytes: bytes, Ratio: o.maxRatio}, nil
}
