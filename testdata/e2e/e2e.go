// SPDX-License-Identifier: Apache-2.0

// Package e2e is what tests and benchmarks of whole programs share: the programs, run
// as their users run them; images; bundles of the probe, which reports what an app sees.
//
// In: what the Makefile makes, by the names that it has in the environment. Out: outcomes
// of commands, running programs, paths. A test that lacks something fails, and says which
// command provides it.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// T is what is used here of a *testing.T, and what a benchmark has, too.
type T interface {
	Helper()
	Name() string
	Log(args ...any)
	Logf(format string, args ...any)
	Error(args ...any)
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Setenv(name, value string)
	TempDir() string
	Cleanup(f func())
	Context() context.Context
}

// Main runs a package's tests, and removes what they share afterwards.
func Main(m *testing.M) {
	code := m.Run()
	Clean()
	os.Exit(code)
}

// Clean removes what tests share.
func Clean() {
	for _, s := range []*shared{&probe, &cokernelProbe, &keys} {
		if s.dir != "" {
			_ = os.RemoveAll(s.dir)
		}
	}
}

// Soak says that tests should prove more than fits into every run.
func Soak() bool { return os.Getenv("TENON_SOAK") != "" }

// Required returns a variable of the environment, which the Makefile sets.
func Required(t T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		_, here := module()
		t.Fatalf("$%s is not set: run 'make e2e P=./%s T=%s'", name, here, strings.TrimPrefix(t.Name(), "TestE2E"))
	}
	return value
}

// Program returns the path of one of our programs.
func Program(t T, name string) string {
	t.Helper()
	return filepath.Join(Required(t, "TENON_BIN"), name)
}

// Path returns the absolute path of a file of this module, by its path in it. The working
// directory has to be in the module.
func Path(file string) string {
	root, _ := module()
	return filepath.Join(root, file)
}

// module finds the module's directory above the working directory, and where that is in it.
func module() (root, here string) {
	wd := Must(os.Getwd())
	for root = wd; ; root = filepath.Dir(root) {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			return root, Must(filepath.Rel(root, wd))
		}
		if root == "/" {
			return wd, "PACKAGE"
		}
	}
}

// Cache is the build cache that tests use unless they say otherwise.
func Cache() string {
	if dir := os.Getenv("TENON_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(Must(os.UserCacheDir()), "tenon")
}

// Must is for what does not fail.
func Must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// Outcome is how a command ended.
type Outcome struct {
	Code           int
	Stdout, Stderr string
	Took           time.Duration
}

func (o Outcome) String() string {
	return fmt.Sprintf("exit status %d after %s\nstdout: %s\nstderr: %s", o.Code, o.Took.Round(time.Millisecond), o.Stdout, o.Stderr)
}

// Execute runs a command to its end. What it prints is in the Outcome.
func Execute(cmd *exec.Cmd) Outcome {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	started := time.Now()
	if err := cmd.Run(); cmd.ProcessState == nil {
		return Outcome{-1, "", err.Error(), 0}
	}
	return Outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(started)}
}

// Command is a program that the end of the test ends. It is asked to end, so that it ends what
// it has started, too, and killed when it does not.
func Command(t T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second // an app has ten to stop
	return cmd
}

// Tenon runs tenon.
func Tenon(t T, args ...string) Outcome {
	t.Helper()
	return Execute(Command(t, Program(t, "tenon"), args...))
}

// Tool runs somebody else's program, which has to succeed, and returns what it prints.
func Tool(t T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// WriteFile writes a file and returns its path.
func WriteFile(t T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Flip returns a copy of data with a bit of the byte at that offset changed.
func Flip(data []byte, at int) []byte {
	out := bytes.Clone(data)
	out[at] ^= 1
	return out
}

// Largest returns the path of the largest file of a directory.
func Largest(t T, dir string) string {
	t.Helper()
	var path string
	var size int64
	for _, e := range Must(os.ReadDir(dir)) {
		if info := Must(e.Info()); info.Size() > size {
			path, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	return path
}
