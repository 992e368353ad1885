// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// took runs commands at once, each with the output of the one before as its input, and
// returns how long it took until all had ended. All of them have to succeed.
func took(t e2e.T, cmds ...*exec.Cmd) sample {
	t.Helper()
	stderr := make([]bytes.Buffer, len(cmds))
	var ours []*os.File // the ends that the commands have, too
	began := time.Now()
	for i, cmd := range cmds {
		cmd.Stderr = &stderr[i]
		if i > 0 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmds[i-1].Stdout, cmd.Stdin, ours = w, r, append(ours, r, w)
		}
	}
	var failed error
	var started []*exec.Cmd
	for _, cmd := range cmds {
		if failed = cmd.Start(); failed != nil {
			break
		}
		started = append(started, cmd)
	}
	for _, f := range ours { // so that each sees when its neighbour ends
		f.Close()
	}
	for i, cmd := range started {
		if err := cmd.Wait(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(stderr[i].String())))
		}
	}
	took := sample(time.Since(began))
	if failed != nil {
		t.Fatal(failed)
	}
	return took
}

// qemu boots a machine until a line of its console matches. It returns what the expression's
// groups match, and how long it took since QEMU was started.
func qemu(t e2e.T, until *regexp.Regexp, args ...string) ([]string, sample) {
	t.Helper()
	ctx, kill := context.WithTimeout(t.Context(), time.Minute)
	defer kill()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{"-accel", "tcg,thread=multi", "-cpu", "max",
		"-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	var found []string
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for found == nil && lines.Scan() {
		found = until.FindStringSubmatch(lines.Text())
		seen.WriteString(lines.Text() + "\n")
	}
	took := sample(time.Since(began))
	kill()
	_ = cmd.Wait()
	if found == nil {
		t.Fatalf("no line of the console matches %q: %s%s", until, &stderr, &seen)
	}
	return found, took
}
