// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"slices"
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
	stagePush:           "pushing",
	stagePull:           "pulling",
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
		bar = b.add(stage, total)
		b.bar[stage] = bar
	}
	if total > 0 {
		bar.SetTotal(max(total, done), false)
	}
	bar.SetCurrent(done)
}

// add adds a bar, or a spinner for a stage without a known end.
func (b *bars) add(stage builder.Stage, total int64) *mpb.Bar {
	bytes := slices.Contains([]builder.Stage{builder.StageLayers, builder.StagePack, stagePush, stagePull}, stage)
	name := mpb.PrependDecorators(decor.Name(stageNames[stage], decor.WC{W: 22, C: decor.DindentRight}))
	elapsed := decor.Elapsed(decor.ET_STYLE_MMSS, decor.WC{W: 7})
	switch {
	case total > 0 && bytes:
		return b.mpb.AddBar(total, name, mpb.AppendDecorators(decor.CountersKibiByte("% .1f / % .1f"), elapsed))
	case total > 0:
		return b.mpb.AddBar(total, name, mpb.AppendDecorators(decor.CountersNoUnit("%d / %d"), elapsed))
	case bytes:
		return b.mpb.AddSpinner(0, name, mpb.AppendDecorators(decor.CurrentKibiByte("% .1f"), elapsed))
	case stage == builder.StageKernel:
		return b.mpb.AddSpinner(0, name, mpb.AppendDecorators(decor.CurrentNoUnit("%d steps"), elapsed))
	}
	return b.mpb.AddSpinner(0, name, mpb.AppendDecorators(elapsed))
}

// Write writes a line of the log, above the bars.
func (b *bars) Write(p []byte) (int, error) {
	if b.mpb == nil {
		return b.w.Write(p)
	}
	return b.mpb.Write(p)
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
