// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/image"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// embedded is the last commit that built a kernel with its initramfs inside.
const embedded = "06172dcebd5de2721f180b748dc57b8b72fa7205"

const sealRounds = 3

// checkedRE is what a sealed kernel says of its check; reportRE is the app of these images.
var (
	checkedRE = regexp.MustCompile(`this kernel is sealed to the initramfs that is here: .*checked in (\d+) us`)
	reportRE  = regexp.MustCompile(`REPORT (.*)`)
)

// sealed compares what 'tenon build' does when only the image has changed with what it did
// when the initramfs was inside the kernel, and with 'tenon rootfs', which makes the initramfs
// alone. And it compares how the two forms boot.
func sealed(j *job) []series {
	j.step("compiling tenon as of commit %.7s", embedded)
	tree := j.TempDir()
	took(j, e2e.Command(j, "git", "-C", e2e.Path("."), "archive", embedded), e2e.Command(j, "tar", "-x", "-C", tree))
	took(j, e2e.Command(j, "make", "-C", tree, "build"))
	before := filepath.Join(tree, "bin/tenon")
	after := e2e.Program(j, "tenon")

	small := newVariants(j, before, after, "redis's image", 0)
	large := newVariants(j, before, after, "an image of 187 MiB", 187)

	kernel, initramfs := e2e.LayerFile(j, small.after, bundle.KernelType), e2e.LayerFile(j, small.after, bundle.InitramfsType)
	inside := filepath.Join(j.TempDir(), "bzImage")
	took(j, e2e.Command(j, before, "export", "--allow-unsigned", "-o", inside, small.before))
	machine := []string{"-smp", "2", "-m", fmt.Sprint(e2e.Inspect(j, small.after).Claims.Memory.Min >> 20),
		"-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="}
	boot := func(t e2e.T, args ...string) (report string, took sample) {
		found, took := qemu(t, reportRE, append(args, machine...)...)
		return found[1], took
	}
	var last sample // boot of the new form
	return []series{small.series(j, before, after), large.series(j, before, after), {
		what:   "from QEMU's start to the app, redis's root file system, two emulated CPUs",
		unit:   milliseconds,
		rounds: 5,
		subject: side{"sealed by digest", nil, func(t e2e.T) sample {
			_, last = boot(t, "-kernel", kernel, "-initrd", initramfs)
			return last
		}},
		peers: []side{{"with the initramfs inside", nil, func(t e2e.T) sample {
			_, took := boot(t, "-kernel", inside)
			return took
		}}},
	}, {
		what:   "the kernel's check of the initramfs, as a part of that",
		unit:   milliseconds,
		rounds: 5,
		subject: side{"the check", nil, func(t e2e.T) sample {
			var report struct{ Kmsg []string }
			text, took := boot(t, "-kernel", kernel, "-initrd", initramfs)
			if err := json.Unmarshal([]byte(text), &report); err != nil {
				t.Fatal(err)
			}
			last = took
			for _, line := range report.Kmsg {
				if m := checkedRE.FindStringSubmatch(line); m != nil {
					n, err := strconv.Atoi(m[1])
					if err != nil {
						t.Fatal(err)
					}
					return sample(time.Duration(n) * time.Microsecond)
				}
			}
			t.Fatalf("the kernel says nothing of its check: %q", report.Kmsg)
			return 0
		}},
		peers: []side{{"the boot to the app", nil, func(e2e.T) sample { return last }}},
	}}
}

// variants are images that differ in one file, and bundles of the first.
type variants struct {
	what          string
	images        []string
	before, after string // bundles
}

// newVariants makes images on top of redis's that have at least so many MiB unpacked, and
// builds the first with both programs, so that their kernels are there.
func newVariants(j *job, before, after, what string, mib int64) *variants {
	base, err := image.Open(j.Context(), "oci:"+e2e.Required(j, "TENON_REDIS_IMAGE"), v1.Platform{OS: "linux", Architecture: "amd64"}, func(int64) {})
	if err != nil {
		j.Fatal(err)
	}
	j.Cleanup(func() { base.Close() })
	v := &variants{what: what}
	var filler []byte
	add := func(n int) {
		files := []e2e.File{{Header: tar.Header{Name: "variant", Mode: 0o644}, Content: fmt.Append(nil, n)}}
		if len(filler) > 0 {
			files = append(files, e2e.File{Header: tar.Header{Name: "filler", Mode: 0o644}, Content: filler})
		}
		v.images = append(v.images, e2e.ImageOn(j, base, nil, files...))
	}
	add(0)
	j.step("building a bundle of %s", what)
	v.after = v.build(j, after, 0)
	if missing := mib<<20 - e2e.Inspect(j, v.after).Initramfs.Unpacked; missing > 0 {
		filler = compressible(missing)
		v.images = nil
		add(0)
		v.after = v.build(j, after, 0)
	}
	j.step("building the same with the initramfs inside the kernel")
	v.before = v.build(j, before, 0)
	for n := range sealRounds {
		add(n + 1)
	}
	return v
}

// compressible returns bytes that are half as large when they are compressed.
func compressible(n int64) []byte {
	random := rand.NewChaCha8([32]byte{})
	out := make([]byte, n)
	for rest := out; len(rest) > 0; {
		part := rest[:min(len(rest), 4096)]
		_, _ = io.ReadFull(random, part[:len(part)/2])
		copy(part[len(part)/2:], bytes.Repeat([]byte("text of a program "), 200))
		rest = rest[len(part):]
	}
	return out
}

func (v *variants) command(t e2e.T, program string, n int, out string) *exec.Cmd {
	return e2e.Command(t, program, "build", "-r", "redis", "--name", "redis", "-o", out, v.images[n])
}

func (v *variants) build(j *job, program string, n int) string {
	out := filepath.Join(j.TempDir(), "redis.tenon")
	took(j, v.command(j, program, n, out))
	return out
}

func (v *variants) series(j *job, before, after string) series {
	dir := map[string]string{before: j.TempDir(), after: j.TempDir(), "rootfs": j.TempDir()}
	round := map[string]int{} // of each side
	next := func(side string) int { round[side]++; return round[side] }
	build := func(program string) func(t e2e.T) sample {
		return func(t e2e.T) sample {
			return took(t, v.command(t, program, next(program), filepath.Join(dir[program], "out.tenon")))
		}
	}
	return series{
		what:    "build again when only the image has changed: " + v.what,
		unit:    milliseconds,
		rounds:  sealRounds,
		subject: side{"tenon build", nil, build(after)},
		peers: []side{
			{"tenon build, as it was: another link", nil, build(before)},
			{"tenon rootfs", nil, func(t e2e.T) sample {
				return took(t, e2e.Command(t, after, "rootfs", v.images[next("rootfs")], "-o", filepath.Join(dir["rootfs"], "out.cpio.zst")))
			}},
		},
	}
}
