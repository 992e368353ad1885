// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tenon-build/tenon/builder/bundle/seal"
)

// What the kernel's build wants compressed is in one file of the object tree, and what it
// takes for the result is in another.
const (
	plainName  = "tenon.plain"
	packedName = "tenon.packed"
)

// compressor is the program that the kernel's build runs instead of zstd.
const compressor = `ZSTD=sh -c "cat >` + plainName + ` && cat ` + packedName + `" zstd`

// compressed is what the kernel's build makes with it, in the object tree.
const compressed = "arch/x86/boot/compressed/vmlinux.bin.zst"

// zstdArgs make a kernel as small as kbuild's own -22 --ultra, on all CPUs. Frames follow
// seal.Frame, whose version is part of the names of kernels in the cache.
var zstdArgs = []string{"zstd", "-q", "-19", "-T0", "--no-check"}

const frameVersion = "frame 1"

// link makes the bzImage: first around nothing, which says what there is to compress, and
// then around the frame of that.
func (k *kbuild) link(ctx context.Context) error {
	plain, packed := filepath.Join(k.objects, plainName), filepath.Join(k.objects, packedName)
	if err := os.WriteFile(packed, nil, 0o600); err != nil {
		return err
	}
	if err := k.run(ctx, nil, "bzImage"); err != nil {
		return err
	}
	kernel, err := os.ReadFile(plain)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // its configuration asks for another compressor
	}
	if err != nil {
		return err
	}
	frame, err := seal.Frame(kernel, func(part []byte) ([]byte, error) { return compress(ctx, part) })
	if err != nil {
		return err
	}
	err = errors.Join(os.WriteFile(packed, frame, 0o600), os.Remove(filepath.Join(k.objects, compressed)))
	if err != nil {
		return err
	}
	return k.run(ctx, nil, "bzImage")
}

// compress has zstd make a frame.
func compress(ctx context.Context, data []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, zstdArgs[0], zstdArgs[1:]...)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stdin = bytes.NewReader(data)
	var frame, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &frame, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("zstd: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return frame.Bytes(), nil
}
