// SPDX-License-Identifier: Apache-2.0

// Package kernel compiles a Linux kernel for one app.
//
// In: a source tree, configuration fragments and, when sealed, a compressed
// initramfs. Out: a bzImage, its .config and System.map, the same bytes for the
// same inputs and tools, whatever the path, user, time or number of jobs.
// Refused: fragments that contradict each other or ask for what this kernel
// does not have, a configuration that leaves a sealed kernel open.
//
// Everything is cached by content. When only the initramfs changed, the
// compiled objects are linked again.
package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

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
	Initramfs   Initramfs // embedded when sealed
	Jobs        int       // processes of make at once

	// Progress is called as the compiler goes, with the steps done so far and
	// in total: an estimate, and 0 when there is none.
	Progress func(done, total int)
}

// Initramfs is a .cpio.zst file.
type Initramfs struct {
	Path   string
	Digest string // "sha256:HEX"
}

// Kernel is a finished kernel in the cache.
type Kernel struct {
	Release string // as uname -r prints it
	Dir     string // has the files bzImage, config and System.map
	Config  *kconfig.Config
}

// Path returns the path of one of the kernel's files: bzImage, config or
// System.map.
func (k *Kernel) Path(file string) string { return filepath.Join(k.Dir, file) }

// initramfsName is where the initramfs lies in the object tree. It is relative,
// because the configuration names it.
const initramfsName = "tenon.cpio.zst"

// Build returns the kernel of the request, from the cache if it is there.
func Build(ctx context.Context, cache *Cache, req Request) (*Kernel, error) {
	config, err := Resolve(ctx, cache, req)
	if err != nil {
		return nil, err
	}
	tools := key("tools", req.Source.Digest, fmt.Sprint(*req.Toolchain), Arch, strings.Join(variables, " "), strings.Join(environment()[1:], " "))
	objects := key("objects", tools, string(config), fmt.Sprint(req.Sealed), forceInitramfs)
	kernelKey := objects
	if req.Sealed {
		kernelKey = key("kernel", objects, req.Initramfs.Digest)
	}
	if cache.has("kernel", kernelKey) {
		return open(cache.Path("kernel", kernelKey))
	}
	lock, err := cache.lock(ctx, "objects", tools)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if !cache.has("kernel", kernelKey) { // nobody else made it meanwhile
		if err := build(ctx, cache, req, config, filepath.Join(tools, objects), kernelKey, lock); err != nil {
			return nil, err
		}
	}
	return open(cache.Path("kernel", kernelKey))
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
	return &Kernel{Release: strings.TrimSpace(string(release)), Dir: dir, Config: config}, nil
}

// Resolve runs the tree's own configuration program over the request's
// fragments, checks that it kept every symbol, and returns the .config.
func Resolve(ctx context.Context, cache *Cache, req Request) ([]byte, error) {
	fragments := req.Fragments
	if req.Sealed {
		generated, err := kconfig.ParseFragment("(build)", fmt.Appendf(nil, "CONFIG_CMDLINE=%s\nCONFIG_INITRAMFS_SOURCE=%s\n", kconfig.Quote(req.CommandLine), kconfig.Quote(initramfsName)))
		if err != nil {
			return nil, err
		}
		fragments = append(fragments[:len(fragments):len(fragments)], generated)
	}
	request, err := kconfig.Merge(fragments...)
	if err != nil {
		return nil, err
	}
	// The positions of the settings are part of the key, as errors name them.
	asked, err := json.Marshal(fragments)
	if err != nil {
		return nil, err
	}
	name := key("config", req.Source.Digest, string(asked), fmt.Sprint(*req.Toolchain), fmt.Sprint(req.Sealed))
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
	if err := check(data, request, req); err != nil {
		return nil, err
	}
	return data, cache.commit(path, "config", name)
}

func check(data []byte, request *kconfig.Request, req Request) error {
	config, err := kconfig.ParseConfig(".config", data)
	if err != nil {
		return err
	}
	tree, err := kconfig.ParseTree(os.DirFS(req.Source.Dir), "Kconfig", "x86")
	if err != nil {
		return err
	}
	if err := kconfig.Check(request, config, tree); err != nil {
		return err
	}
	if req.Sealed {
		return errors.Join(checkSealed(config), checkForce(req.Source.Dir))
	}
	return nil
}

// build compiles, or links again, in the folder "work" beside the objects. Its
// path is the same for all configurations of one source, because the kernel's
// build writes it into its dependency files and would compile everything again
// elsewhere. It starts from a copy of these objects, or of the newest ones of
// another configuration, of which the kernel's build keeps what does not depend
// on the difference. Nothing works in the copies, so that a killed build harms
// nothing.
func build(ctx context.Context, cache *Cache, req Request, config []byte, objects, kernelKey string, lock *os.File) (err error) {
	dir := cache.Path("objects", objects)
	work := filepath.Join(filepath.Dir(dir), "work")
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	start, err := newest(filepath.Dir(dir))
	if err != nil {
		return err
	}
	compiled := cache.has("objects", objects)
	switch {
	case compiled:
		err = copyObjects(ctx, dir, work)
	case start != "":
		err = copyObjects(ctx, start, work)
	default:
		err = os.MkdirAll(work, 0o755)
	}
	if err != nil {
		return err
	}
	if req.Sealed {
		if err := copyFile(req.Initramfs.Path, filepath.Join(work, initramfsName)); err != nil {
			return err
		}
	}
	if err := compile(ctx, req, config, work, compiled, lock); err != nil {
		return err
	}
	result, err := collect(cache, work)
	if err != nil {
		return err
	}
	defer os.RemoveAll(result)
	if err := cache.commit(result, "kernel", kernelKey); err != nil || compiled {
		return err
	}
	for _, pattern := range linked {
		files, err := filepath.Glob(filepath.Join(work, pattern))
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	return cache.commit(work, "objects", objects)
}

// linked is what every link makes anew: large, and not worth keeping.
var linked = []string{
	initramfsName, "usr/initramfs_inc_data", "usr/initramfs_data.o", "vmlinux", "vmlinux.o", ".tmp_vmlinux*",
	"arch/x86/boot/bzImage", "arch/x86/boot/vmlinux.bin", "arch/x86/boot/compressed/vmlinux*", "arch/x86/boot/compressed/piggy.*",
}

// newest returns the objects that were finished last, empty when there are none.
func newest(home string) (string, error) {
	entries, err := os.ReadDir(home)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var path string
	var latest time.Time
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return "", err
		}
		if e.IsDir() && info.ModTime().After(latest) {
			path, latest = filepath.Join(home, e.Name()), info.ModTime()
		}
	}
	return path, nil
}

func compile(ctx context.Context, req Request, config []byte, work string, compiled bool, lock *os.File) error {
	log, err := os.Create(filepath.Join(filepath.Dir(work), "build.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	k := kbuild{source: req.Source.Dir, objects: work, jobs: req.Jobs, sealed: req.Sealed, log: log, lock: lock}
	total := 0
	if !compiled {
		if err := os.WriteFile(filepath.Join(work, ".config"), config, 0o644); err != nil {
			return err
		}
		req.Progress(0, 0)
		if err := k.run(ctx, nil, "prepare"); err != nil {
			return err
		}
		total = k.countSteps(ctx)
	}
	done := 0
	k.step = func(string) {
		done++
		req.Progress(done, total)
	}
	if err := k.run(ctx, nil, "bzImage"); err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(work, ".config"))
	if err == nil && string(got) != string(config) {
		err = errors.New("the kernel's build changed its configuration")
	}
	return err
}

// collect copies the results out of the object tree.
func collect(cache *Cache, work string) (string, error) {
	tmp, err := cache.TempDir()
	if err != nil {
		return "", err
	}
	for file, from := range map[string]string{
		"bzImage":    "arch/x86/boot/bzImage",
		"System.map": "System.map",
		"config":     ".config",
		"release":    "include/config/kernel.release",
	} {
		if err := copyFile(filepath.Join(work, from), filepath.Join(tmp, file)); err != nil {
			return "", errors.Join(err, os.RemoveAll(tmp))
		}
	}
	return tmp, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// copyObjects copies an object tree with the times that make compares.
func copyObjects(ctx context.Context, from, to string) error {
	out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("copying compiled objects: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}
