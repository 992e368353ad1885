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

// screen is standard error. What is written while bars are shown goes above them.
type screen struct {
	w    io.Writer
	mu   sync.Mutex
	bars *mpb.Progress // nil while none are shown
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bars != nil {
		if n, err := s.bars.Write(p); err == nil {
			return n, nil
		} // they have ended
	}
	return s.w.Write(p)
}

func (s *screen) show(bars *mpb.Progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bars = bars
}

// bars shows how far long work is: a bar a stage on a terminal, else a line at the
// beginning of each stage and every ten seconds.
type bars struct {
	screen *screen
	mu     sync.Mutex
	mpb    *mpb.Progress // nil when the screen is not a terminal
	bar    map[builder.Stage]*mpb.Bar
	stages map[builder.Stage]*progress
	stage  builder.Stage // the last one of which something was heard
	stop   chan struct{} // ends the lines
	ended  sync.WaitGroup
}

// progress is how far a stage is.
type progress struct {
	done, total int64
	began, said time.Time
	read        int64 // bytes that this process had read when it began
}

// The stages of commands other than build; what moves bundles has one each.
const (
	stagePush    builder.Stage = "push"
	stagePull    builder.Stage = "pull"
	stageWorking builder.Stage = "working"
)

// stageNames are what people read.
var stageNames = map[builder.Stage]string{
	builder.StageOpen:   "opening image",
	builder.StageLayers: "reading layers",
	builder.StagePack:   "packing initramfs",
	builder.StageSource: "opening kernel source",
	builder.StageConfig: "configuring kernel",
	builder.StageKernel: "building kernel",
	builder.StageWrite:  "writing bundle",
	stagePush:           "pushing",
	stagePull:           "pulling",
	stageWorking:        "reading bundle",
}

// countsBytes are the stages whose unit is a byte.
var countsBytes = []builder.Stage{builder.StageOpen, builder.StageLayers, builder.StagePack, builder.StageWrite, stagePush, stagePull}

// lineInterval is how often a stage is reported when there is no terminal.
const lineInterval = 10 * time.Second

func newBars(s *screen) *bars {
	b := &bars{screen: s, bar: map[builder.Stage]*mpb.Bar{}, stages: map[builder.Stage]*progress{}, stop: make(chan struct{})}
	if f, ok := s.w.(*os.File); ok && isTerminal(f) {
		b.mpb = mpb.New(mpb.WithOutput(f), mpb.WithWidth(72))
		s.show(b.mpb)
		return b
	}
	b.ended.Go(func() { b.lines(time.NewTicker(lineInterval / 20)) })
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
		p := b.stages[stage]
		if p == nil {
			now := time.Now()
			p = &progress{began: now, said: now, read: bytesRead()}
			b.stages[stage] = p
			b.say(stage, "")
		}
		b.stage, p.done, p.total = stage, done, total
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
	bytes := slices.Contains(countsBytes, stage)
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

// lines says how far the stage is, whether or not something was heard of it.
func (b *bars) lines(tick *time.Ticker) {
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case now := <-tick.C:
			b.mu.Lock()
			if p := b.stages[b.stage]; p != nil && now.Sub(p.said) >= lineInterval {
				p.said = now
				b.say(b.stage, ": "+p.text(slices.Contains(countsBytes, b.stage), now))
			}
			b.mu.Unlock()
		}
	}
}

func (b *bars) say(stage builder.Stage, text string) {
	fmt.Fprintf(b.screen, "tenon: %s%s\n", stageNames[stage], text)
}

// text is how far it is: in percent if that is known, else in bytes.
func (p *progress) text(bytes bool, now time.Time) string {
	unit, steps := size, ""
	if !bytes {
		unit, steps = func(n int64) string { return fmt.Sprint(n) }, " steps"
	}
	took := now.Sub(p.began).Round(time.Second)
	switch {
	case p.total > 0:
		return fmt.Sprintf("%d%% (%s of %s%s), %s", 100*min(p.done, p.total)/p.total, unit(p.done), unit(max(p.done, p.total)), steps, took)
	case p.done > 0:
		return fmt.Sprintf("%s%s, %s", unit(p.done), steps, took)
	}
	if read := bytesRead() - p.read; read >= 1<<20 { // less is not this process's work
		return fmt.Sprintf("%s read, %s", size(read), took)
	}
	return took.String()
}

// bytesRead returns how many bytes this process has read of files, pipes and sockets: proc(5).
func bytesRead() int64 {
	data, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0
	}
	var n int64
	_, _ = fmt.Sscanf(string(data), "rchar: %d", &n) // 0 where the kernel does not count
	return n
}

// done ends the bars: all at their end, or as they are.
func (b *bars) done(complete bool) {
	if b.mpb == nil {
		close(b.stop)
		b.ended.Wait()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, bar := range b.bar {
		if complete {
			bar.SetTotal(-1, true)
		} else {
			bar.Abort(false)
		}
	}
	b.mpb.Wait()
	b.screen.show(nil)
}

// quiet is how long work that is seldom long says nothing.
const quiet = 2 * time.Second

// working says that a command works on what it was given, if that takes a while, until stop is
// called.
func (a *app) working() (stop func()) {
	var mu sync.Mutex
	var b *bars
	stopped := false
	timer := time.AfterFunc(quiet, func() {
		mu.Lock()
		defer mu.Unlock()
		if !stopped {
			b = newBars(a.screen)
			b.update(stageWorking, 0, 0)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		timer.Stop()
		if b != nil && !stopped {
			b.done(true)
		}
		stopped = true
	}
}
