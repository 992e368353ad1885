// SPDX-License-Identifier: Apache-2.0

// Package kernel compiles a Linux kernel for one app.
//
// In: a source tree and configuration fragments. Out: a bzImage, which package seal
// binds to an initramfs, its .config and System.map, the same bytes for the same inputs and
// tools, whatever the path, user, time or number of jobs.
// Refused: fragments that contradict each other or ask for what this kernel
// does not have, a configuration that leaves a sealed kernel open.
//
// Everything is cached by content. A new initramfs needs no new kernel.
package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/kconfig"
)

// Arch is the only architecture so far, in the kernel's terms.
const Arch = "x86_64"

// Request says what kernel to build.
type Request struct {
	Source      *Source
	Toolchain   *Toolchain
	Fragments   []*kconfig.Fragment
	CommandLine string // built in when sealed
	Sealed      bool
	Jobs        int // processes of make at once

	// Progress is called as the compiler goes, with the steps done so far and
	// in total: an estimate, and 0 when there is none.
	Progress func(done, total int)
}

// Kernel is a finished kernel in the cache.
type Kernel struct {
	Release string // as uname -r prints it
	Dir     string // has the files bzImage, config and System.map
	Config  *kconfig.Config

	ConfigDigest string // "sha256:HEX" of the file config
}

// Path returns the path of one of the kernel's files: bzImage, config or
// System.map.
func (k *Kernel) Path(file string) string { return filepath.Join(k.Dir, file) }

// builtinName is where the built-in initramfs lies in the object tree, an archive without
// entries: kbuild's own would add files that are not the image's. It is relative, because
// the configuration names it.
const builtinName = "tenon.cpio"

// Build returns the kernel of the request, from the cache if it is there.
func Build(ctx context.Context, cache *Cache, req Request) (*Kernel, error) {
	config, err := Resolve(ctx, cache, req)
	if err != nil {
		return nil, err
	}
	tools := key("tools", req.Source.Digest, fmt.Sprint(*req.Toolchain), Arch, strings.Join(variables, " "), strings.Join(environment()[1:], " "), strings.Join(zstdArgs, " "), frameVersion)
	name := key("objects", tools, string(config))
	if cache.has("kernel", name) {
		return open(cache.Path("kernel", name))
	}
	lock, err := cache.lock(ctx, "objects", tools)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if !cache.has("kernel", name) { // nobody else made it meanwhile
		if err := build(ctx, cache, req, config, tools, name, lock); err != nil {
			return nil, err
		}
	}
	return open(cache.Path("kernel", name))
}

func key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func open(dir string) (*Kernel, error) {
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, "config"))
	if err != nil {
		return nil, err
	}
	config, err := kconfig.ParseConfig(filepath.Join(dir, "config"), data)
	if err != nil {
		return nil, err
	}
	return &Kernel{
		Release: strings.TrimSpace(string(release)), Dir: dir,
		Config: config, ConfigDigest: fmt.Sprintf("sha256:%x", sha256.Sum256(data)),
	}, nil
}

// Resolve runs the tree's own configuration program over the request's
// fragments, checks that it kept every symbol and the seal, and returns the
// .config.
func Resolve(ctx context.Context, cache *Cache, req Request) ([]byte, error) {
	data, err := resolve(ctx, cache, req)
	if err != nil || !req.Sealed {
		return data, err
	}
	return data, seal.CheckConfig(data, req.CommandLine)
}

func resolve(ctx context.Context, cache *Cache, req Request) ([]byte, error) {
	generated, err := Generated(req.CommandLine, req.Sealed)
	if err != nil {
		return nil, err
	}
	fragments := slices.Concat(req.Fragments, []*kconfig.Fragment{generated})
	request, err := kconfig.Merge(fragments...)
	if err != nil {
		return nil, err
	}
	// The positions of the settings are part of the key, as errors name them.
	asked, err := json.Marshal(fragments)
	if err != nil {
		return nil, err
	}
	name := key("config", req.Source.Digest, string(asked), fmt.Sprint(*req.Toolchain), strings.Join(variables, " "))
	if data, err := os.ReadFile(cache.Path("config", name)); err == nil {
		return data, nil
	}
	tmp, err := cache.TempDir()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	asking := filepath.Join(tmp, "request")
	if err := os.WriteFile(asking, request.Format(), 0o644); err != nil {
		return nil, err
	}
	k := kbuild{source: req.Source.Dir, objects: tmp, jobs: 1, log: io.Discard}
	if err := k.run(ctx, []string{"KCONFIG_ALLCONFIG=" + asking}, "allnoconfig"); err != nil {
		return nil, err
	}
	path := filepath.Join(tmp, ".config")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := check(data, request, req.Source); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o644); err != nil { // whatever the umask is
		return nil, err
	}
	return data, cache.commit(path, "config", name)
}

// Generated returns the settings that the build itself adds to the fragments.
func Generated(commandLine string, sealed bool) (*kconfig.Fragment, error) {
	text := fmt.Appendf(nil, "CONFIG_INITRAMFS_SOURCE=%s\nCONFIG_INITRAMFS_COMPRESSION_NONE=y\n", kconfig.Quote(builtinName))
	if sealed {
		text = fmt.Appendf(text, "CONFIG_CMDLINE=%s\n", kconfig.Quote(commandLine))
	}
	return kconfig.ParseFragment("(build)", text)
}

func check(data []byte, request *kconfig.Request, source *Source) error {
	config, err := kconfig.ParseConfig(".config", data)
	if err != nil {
		return err
	}
	tree, err := kconfig.ParseTree(os.DirFS(source.Dir), "Kconfig", "x86")
	if err != nil {
		return err
	}
	return kconfig.Check(request, config, tree)
}
