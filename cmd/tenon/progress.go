// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder"
)

// bars shows a build's progress: a bar a stage on a terminal, else a line now
// and then.
type bars struct {
	w    io.Writer
	mu   sync.Mutex
	mpb  *mpb.Progress // nil when w is not a terminal
	bar  map[builder.Stage]*mpb.Bar
	last map[builder.Stage]time.Time
}

// stageNames are what people read.
var stageNames = map[builder.Stage]string{
	builder.StageLayers: "reading layers",
	builder.StagePack:   "packing initramfs",
	builder.StageSource: "opening kernel source",
	builder.StageKernel: "building kernel",
}

// lineInterval is how often a stage is reported when there is no terminal.
const lineInterval = 15 * time.Second

func newBars(w io.Writer) *bars {
	b := &bars{w: w, bar: map[builder.Stage]*mpb.Bar{}, last: map[builder.Stage]time.Time{}}
	if f, ok := w.(*os.File); ok && isTerminal(f) {
		b.mpb = mpb.New(mpb.WithOutput(w), mpb.WithWidth(72))
	}
	return b
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// update is a builder.Progress.
func (b *bars) update(stage builder.Stage, done, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mpb == nil {
		b.line(stage, done, total)
		return
	}
	bar := b.bar[stage]
	if bar == nil {
		counter := decor.CountersNoUnit("%d / %d")
		if stage == builder.StageLayers || stage == builder.StagePack {
			counter = decor.CountersKibiByte("% .1f / % .1f")
		}
		bar = b.mpb.AddBar(total,
			mpb.PrependDecorators(decor.Name(stageNames[stage], decor.WCSyncSpaceR)),
			mpb.AppendDecorators(counter, decor.Elapsed(decor.ET_STYLE_MMSS, decor.WC{W: 7})))
		b.bar[stage] = bar
	}
	bar.SetTotal(max(total, done), false)
	bar.SetCurrent(done)
}

func (b *bars) line(stage builder.Stage, done, total int64) {
	if time.Since(b.last[stage]) < lineInterval {
		return
	}
	first := b.last[stage].IsZero()
	b.last[stage] = time.Now()
	switch {
	case first || done == 0:
		fmt.Fprintf(b.w, "tenon: %s\n", stageNames[stage])
	case total > 0:
		fmt.Fprintf(b.w, "tenon: %s: %d%% (%d of %d)\n", stageNames[stage], 100*min(done, total)/total, done, max(done, total))
	}
}

// done ends the bars: all at their end, or as they are.
func (b *bars) done(complete bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mpb == nil {
		return
	}
	for _, bar := range b.bar {
		if complete {
			bar.SetTotal(-1, true)
		} else {
			bar.Abort(false)
		}
	}
	b.mpb.Wait()
}
