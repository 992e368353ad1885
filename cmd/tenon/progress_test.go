// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tenon-build/tenon/builder"
)

// lockedBuffer is a buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Without a terminal there is a line at the beginning of each stage, and every ten seconds, whether
// or not something was heard of it.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		b := newBars(&screen{w: &out})
		b.update(builder.StageLayers, 0, 100<<20)
		time.Sleep(25 * time.Second)
		b.update(builder.StageLayers, 50<<20, 100<<20)
		time.Sleep(10 * time.Second)
		b.update(builder.StagePack, 0, 0)
		b.update(builder.StagePack, 7<<20, 0)
		time.Sleep(11 * time.Second)
		b.update(builder.StageSource, 0, 0)
		time.Sleep(11 * time.Second)
		b.update(builder.StageKernel, 3, 12)
		time.Sleep(11 * time.Second)
		b.done(true)
		time.Sleep(time.Minute)
		want := []string{
			"reading layers", `reading layers: 0% \(0 B of 100 MiB\), 10s`, `reading layers: 0% \(0 B of 100 MiB\), 20s`, `reading layers: 50% \(50 MiB of 100 MiB\), 30s`,
			"packing initramfs", "packing initramfs: 7 MiB, 10s", "opening kernel source", `opening kernel source: (.*B read, )?10s`, "building kernel", `building kernel: 25% \(3 of 12 steps\), 10s`,
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		for i := range max(len(lines), len(want)) {
			if i >= len(lines) || i >= len(want) || !regexp.MustCompile("^tenon: "+want[i]+"$").MatchString(lines[i]) {
				t.Fatalf("line %d of\n%swant %q", i, out.String(), want)
			}
		}
	})
}

// Work that is seldom long says nothing unless it is.
func TestWorking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		a := newApp(&out, &out)
		stop := a.working()
		time.Sleep(quiet / 2)
		stop()
		time.Sleep(time.Minute)
		if out.String() != "" {
			t.Errorf("got %q", out.String())
		}
		stop = a.working()
		time.Sleep(quiet + lineInterval + time.Second)
		stop()
		stop()
		time.Sleep(time.Minute)
		if got := out.String(); strings.Count(got, "\n") != 2 || !strings.HasPrefix(got, "tenon: reading bundle\ntenon: reading bundle: ") {
			t.Errorf("got %q", got)
		}
	})
}
