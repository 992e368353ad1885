// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package builder_test

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/signer/flock"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// TestE2EReproducible builds the same bundle twice: in the shared cache, where in soak the
// kernel starts from objects of another configuration; and elsewhere, with other surroundings,
// where soak compiles the kernel from nothing. The digests must be equal.
func TestE2EReproducible(t *testing.T) {
	e2e.Probe(t) // so that "here" starts from objects of another configuration
	builds := map[string][]string{
		"probe": {"--name", "probe", "-r", e2e.ProbeRecipe(), e2e.Image(t, nil, e2e.ProbeFiles...)},
	}
	if e2e.Soak() {
		builds["tiny"] = []string{"--name", "tiny", "-r", e2e.Recipe("tiny"), e2e.Image(t, nil, e2e.ProbeFiles...)}
		builds["redis"] = []string{"--name", "redis", "oci:" + e2e.Required(t, "TENON_REDIS_IMAGE")}
		builds["redis detached"] = []string{"--name", "redis", "--detached", "oci:" + e2e.Required(t, "TENON_REDIS_IMAGE")}
	}
	for name, args := range builds {
		t.Run(name, func(t *testing.T) {
			_, here := e2e.Build(t, append(args, "-j", "2")...)
			elsewhere := filepath.Join(t.TempDir(), "some/other-folder")
			moved := filepath.Join(elsewhere, "image-by-another-name")
			if err := os.CopyFS(moved, os.DirFS(strings.TrimPrefix(args[len(args)-1], "oci:"))); err != nil {
				t.Fatal(err)
			}
			args[len(args)-1] = "oci:" + moved
			// The cache is new but for the unpacked source, which takes no part in this, and but for the
			// kernel, which takes ten minutes to compile: soak does so.
			cache := filepath.Join(elsewhere, "cache")
			link(t, cache, "source")
			if !e2e.Soak() {
				link(t, cache, "kernel")
			}
			script := "umask 077; cd \"$0\"; exec \"$@\""
			cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", script, elsewhere,
				e2e.Program(t, "tenon"), "build", "-j", "3", "--cache-dir", cache, "-o", "other.tenon"}, args...)...)
			cmd.Env = append(os.Environ(), "TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "USER=somebody",
				"HOME="+elsewhere, "KBUILD_BUILD_USER=evil", "MAKEFLAGS=-k", "CFLAGS=-O0")
			o := e2e.Execute(cmd)
			if o.Code != 0 {
				t.Fatal(o)
			}
			t.Logf("elsewhere: %s\n%s", o.Took.Round(time.Second), o.Stderr)
			if there := strings.TrimSpace(o.Stdout); there != here {
				t.Errorf("digests differ: %s here, %s elsewhere", here, there)
			}
		})
	}
}

// link shares what the shared cache has of a kind with another cache.
func link(t *testing.T, cache, kind string) {
	t.Helper()
	if err := os.MkdirAll(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(e2e.Cache(), kind), filepath.Join(cache, kind)); err != nil {
		t.Fatal(err)
	}
}

// TestE2EDiskFull builds with a cache on small disks, so that it fills up at
// different stages.
func TestE2EDiskFull(t *testing.T) {
	img := e2e.Image(t, nil, e2e.ProbeFiles...)
	for stage, size := range map[string]string{"reading the image": "1M", "unpacking the source": "200M", "compiling": "24M"} {
		t.Run(stage, func(t *testing.T) {
			disk := t.TempDir()
			if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "mode=700,size="+size); err != nil {
				t.Fatalf("mounting a tmpfs (needs root): %v", err)
			}
			defer func() { _ = unix.Unmount(disk, unix.MNT_DETACH) }()
			if stage == "compiling" {
				link(t, disk, "source")
			}
			out := filepath.Join(t.TempDir(), "out.tenon")
			o := e2e.Tenon(t, "build", "-r", e2e.ProbeRecipe(), "--cache-dir", disk, "-o", out, img)
			if o.Code != 1 || !strings.Contains(o.Stderr, "no space left on device") || !strings.Contains(o.Stderr, "hint: make room") {
				t.Error(o)
			}
			if _, err := os.Stat(out); err == nil {
				t.Error("there is an output")
			}
			for _, pattern := range []string{"tmp/*", "objects/*/work", "kernel/*"} {
				if left := e2e.Must(filepath.Glob(filepath.Join(disk, pattern))); len(left) > 0 {
					t.Errorf("left in the cache: %v", left)
				}
			}
		})
	}
}

// TestE2EKilled ends builds half-way while the kernel is linked, and checks
// that the next one makes the right thing and that nothing stays behind.
func TestE2EKilled(t *testing.T) {
	img := newImage(t)
	bundle, undisturbed := e2e.Build(t, "-r", e2e.ProbeRecipe(), "--name", "killed", img) // the objects are there now
	rounds := 1
	if e2e.Soak() {
		rounds = 20
	}
	for round := range 3 * rounds {
		s := []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL}[round%3]
		t.Run(unix.SignalName(s), func(t *testing.T) {
			forgetKernel(t, bundle)
			dir := t.TempDir()
			var stderr e2e.Running
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, e2e.Program(t, "tenon"), "build", "-r", e2e.ProbeRecipe(), "--name", "killed", "-o", filepath.Join(dir, "out.tenon"), img)
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for !strings.Contains(stderr.String(), "building kernel") && ctx.Err() == nil {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(2*time.Second + time.Duration(round)*100*time.Millisecond)
			if err := cmd.Process.Signal(s); err != nil {
				t.Fatalf("the build was over before it could be ended: %v", err)
			}
			_ = cmd.Wait()
			if s != syscall.SIGKILL && (cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "tenon: error: interrupted")) {
				t.Errorf("exit status %d: %s", cmd.ProcessState.ExitCode(), stderr.String())
			}
			if left := e2e.Must(os.ReadDir(dir)); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	forgetKernel(t, bundle)
	bundle, digest := e2e.Build(t, "-r", e2e.ProbeRecipe(), "--name", "killed", img)
	if digest != undisturbed {
		t.Errorf("digests differ: %s after kills, %s without", digest, undisturbed)
	}
	if left := leftInCache(t); len(left) > 0 {
		t.Errorf("left in the cache: %v", left)
	}
	if o := e2e.Run(t, bundle); o.Code != 0 {
		t.Error(o)
	}
}

// leftInCache lists what is in the making there although nobody makes it.
func leftInCache(t *testing.T) (left []string) {
	t.Helper()
	free := func(lock string) bool {
		f := e2e.Must(os.Open(filepath.Join(e2e.Cache(), "lock", lock)))
		defer f.Close()
		return e2e.Must(flock.Try(f))
	}
	root := os.DirFS(e2e.Cache())
	if free("use") {
		left = e2e.Must(fs.Glob(root, "tmp/*"))
	}
	for _, work := range e2e.Must(fs.Glob(root, "objects/*/work")) {
		if free("objects-" + path.Base(path.Dir(work))) {
			left = append(left, work)
		}
	}
	return left
}

// newImage is the probe's image with contents that no cache has seen.
func newImage(t *testing.T) string {
	t.Helper()
	return e2e.Image(t, nil, append(e2e.ProbeFiles, e2e.File{Header: tar.Header{Name: "now", Mode: 0o644}, Content: []byte(time.Now().String())})...)
}

// forgetKernel removes a bundle's kernel from the cache, so that it is linked again.
func forgetKernel(t *testing.T, bundle string) {
	t.Helper()
	want := e2e.Inspect(t, bundle).Kernel.Config
	for _, config := range e2e.Must(filepath.Glob(filepath.Join(e2e.Cache(), "kernel/*/config"))) {
		if fmt.Sprintf("sha256:%x", sha256.Sum256(e2e.Must(os.ReadFile(config)))) != want {
			continue
		}
		if err := os.RemoveAll(filepath.Dir(config)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestE2EAtOnce runs the same build twice at once.
func TestE2EAtOnce(t *testing.T) {
	img := newImage(t)
	forgetKernel(t, e2e.Probe(t))
	digests := make(chan string)
	for range 2 {
		go func() {
			out, err := exec.Command(e2e.Program(t, "tenon"), "build", "-r", e2e.ProbeRecipe(), "-o", filepath.Join(t.TempDir(), "out.tenon"), img).Output()
			digests <- fmt.Sprint(strings.TrimSpace(string(out)), err)
		}()
	}
	one, two := <-digests, <-digests
	if one != two || !strings.HasPrefix(one, "sha256:") {
		t.Errorf("%s, %s", one, two)
	}
}
