// SPDX-License-Identifier: Apache-2.0

// Package decompress tells by its first bytes how a stream is compressed, and undoes it.
//
// In: a stream, plain or compressed with gzip, bzip2, xz or zstd. Out: its content. Refused: what
// is cut off or damaged, zstd with a window of more than 128 MiB, and xz on a machine without the
// program xz.
package decompress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that a zstd stream can ask for, in bytes: what zstd itself takes
// without --long=31.
const maxWindow = 128 << 20

// New returns the content of r, and whether r is compressed. Close it after use: that says
// whether the end was sound, where the program xz does the work.
func New(ctx context.Context, r io.Reader) (content io.ReadCloser, compressed bool, err error) {
	buffered := bufio.NewReaderSize(r, 1<<20)
	magic, err := buffered.Peek(6)
	if err == io.EOF {
		err = errors.New("too short for an archive")
	}
	if err != nil {
		return nil, false, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		return z, true, err
	case bytes.HasPrefix(magic, []byte("BZh")):
		return io.NopCloser(bzip2.NewReader(buffered)), true, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, false, err
		}
		return z.IOReadCloser(), true, nil
	case bytes.Equal(magic, []byte("\xfd7zXZ\x00")):
		x, err := newXZ(ctx, buffered)
		return x, true, err
	}
	return io.NopCloser(buffered), false, nil
}

// xz is the program: no decoder in Go is as fast, and it comes with every machine that unpacks
// kernels.
type xz struct {
	io.Reader
	cmd    *exec.Cmd
	cancel context.CancelFunc
	stderr bytes.Buffer
}

func newXZ(ctx context.Context, r io.Reader) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	x := &xz{cmd: exec.CommandContext(ctx, "xz", "-dcT0"), cancel: cancel}
	x.cmd.Stdin, x.cmd.Stderr = r, &x.stderr
	out, err := x.cmd.StdoutPipe()
	if err == nil {
		x.Reader = out
		err = x.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return x, nil
}

// Close waits for the end of the program, and ends it where something is left to read.
func (x *xz) Close() error {
	defer x.cancel()
	if _, err := x.Read(make([]byte, 1)); err != io.EOF {
		x.cancel()
	}
	err := x.cmd.Wait()
	if err == nil {
		return nil
	}
	return fmt.Errorf("xz: %w: %s", err, strings.TrimSpace(x.stderr.String()))
}
