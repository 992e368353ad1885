// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrCompile says that the kernel's own build failed.
var ErrCompile = errors.New("compiling the kernel failed")

// kbuild runs the kernel's make in an object tree.
type kbuild struct {
	source  string
	objects string
	jobs    int
	lock    *os.File     // of the object tree, or nil: make and all that it starts hold it until they end
	log     io.Writer    // everything that make prints; a file is named in errors
	step    func(string) // called for each step that make prints, or nil
}

// environment is all that a build may depend on: the same on every machine.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=/dev/null",
		"LC_ALL=C",
		"TZ=UTC",
		"SOURCE_DATE_EPOCH=0",
		"KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970",
		"KBUILD_BUILD_USER=tenon",
		"KBUILD_BUILD_HOST=tenon",
		"KBUILD_BUILD_VERSION=1",
	}
}

// variables are the arguments of every make. Rust and pahole decide symbols when
// they are there, so they never are.
var variables = []string{
	"ARCH=x86_64",
	"RUSTC=no-rustc", "BINDGEN=no-bindgen", "PAHOLE=no-pahole",
	compressor,
}

// run runs make with the given targets and options. When ctx ends, make and
// all that it started are killed.
func (k *kbuild) run(ctx context.Context, env []string, args ...string) error {
	args = append(args, variables...)
	args = append(args, "-C", k.source, "O="+k.objects, fmt.Sprintf("-j%d", k.jobs))
	cmd := exec.CommandContext(ctx, "make", args...)
	cmd.Env = append(environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if k.lock != nil {
		cmd.ExtraFiles = []*os.File{k.lock}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stderr bytes.Buffer
	log := &lenient{w: k.log}
	cmd.Stderr = io.MultiWriter(&stderr, log)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fmt.Fprintln(log, lines.Text())
		if k.step != nil && stepRE.MatchString(lines.Text()) {
			k.step(lines.Text())
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // a line beyond the scanner's limit must not block make
	err = cmd.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		line := firstError(stderr.String())
		if strings.Contains(line, noSpace) || errors.Is(log.err, syscall.ENOSPC) {
			return fmt.Errorf("%w: in %s: %w", ErrCompile, k.objects, syscall.ENOSPC)
		}
		err = fmt.Errorf("%w: %s", ErrCompile, line)
		if f, ok := k.log.(*os.File); ok {
			err = fmt.Errorf("%w (see %s)", err, f.Name())
		}
		return err
	}
	return nil
}

// lenient takes all that is written to it, also when the disk is full: make goes on
// and says so. It may be used by several goroutines.
type lenient struct {
	mu  sync.Mutex
	w   io.Writer
	err error // the first one of w
}

func (l *lenient) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.w.Write(p); l.err == nil {
		l.err = err
	}
	return len(p), nil
}

// stepRE matches what kbuild prints for a step, "  CC      init/main.o".
var stepRE = regexp.MustCompile(`^  [A-Z]+[0-9]* `)

// dryStepRE matches the same in the output of make -n.
var dryStepRE = regexp.MustCompile(`echo '  [A-Z]+[0-9]* `)

// countSteps asks make what it would do.
func (k *kbuild) countSteps(ctx context.Context) int {
	n := 0
	dry := kbuild{source: k.source, objects: k.objects, jobs: 1, log: writerFunc(func(p []byte) (int, error) {
		n += len(dryStepRE.FindAllIndex(p, -1))
		return len(p), nil
	})}
	if dry.run(ctx, nil, "-n", "bzImage") != nil {
		return 0 // a bar without an end; the build itself will tell what is wrong
	}
	return n
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

const noSpace = "No space left on device"

// firstError picks the line of make's standard error that says why.
func firstError(stderr string) string {
	lines := strings.Split(strings.TrimSpace(stderr), "\n")
	for _, mark := range []string{noSpace, " error: ", "*** "} {
		for _, line := range lines {
			if strings.Contains(line, mark) {
				return strings.TrimSpace(line)
			}
		}
	}
	return strings.TrimSpace(lines[len(lines)-1])
}
