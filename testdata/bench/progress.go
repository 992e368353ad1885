// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// silence is how long nothing is said at most.
const silence = 8 * time.Second

// progress says what is done, and says it again when it takes long.
type progress struct {
	w     io.Writer
	mu    sync.Mutex
	what  string
	since time.Time
	timer *time.Timer
}

func newProgress(w io.Writer) *progress {
	p := &progress{w: w, since: time.Now()}
	p.timer = time.AfterFunc(silence, p.again)
	return p
}

func (p *progress) again() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line("%s, for %.0f s", p.what, time.Since(p.since).Seconds())
}

// line needs the lock.
func (p *progress) line(format string, args ...any) {
	fmt.Fprintf(p.w, "bench: "+format+"\n", args...)
	p.timer.Reset(silence)
}

// say says something.
func (p *progress) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line("%s", text)
}

// now notes what is done from now on.
func (p *progress) now(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.since = what, time.Now()
}

// end ends the reports.
func (p *progress) end() {
	p.mu.Lock() // no report is under way
	defer p.mu.Unlock()
	p.timer.Stop()
}
