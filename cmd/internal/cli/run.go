// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tenon-build/tenon/loader"
)

// Accept verifies a bundle that is to be run, and warns of what is weaker than it could
// be. With readOnly, what the host has seen is compared, and nothing is remembered.
func (a *App) Accept(ctx context.Context, ref string, t loader.Trust, readOnly bool) (*loader.Verified, error) {
	t.Guarded = a.Guarded
	policy, err := t.Load(readOnly)
	if err != nil {
		return nil, err
	}
	if policy.AllowUnsigned {
		a.Log.Warn("running without a signature: nothing proves who made this bundle", "bundle", ref)
	}
	stop := a.Working()
	v, err := loader.Verify(ctx, ref, policy, func(c loader.Check) {
		if c.Result == loader.CheckWarning {
			a.Log.Warn(c.Object, "why", c.Detail)
		}
	})
	stop()
	if err != nil {
		return nil, err
	}
	if !v.Sealed() {
		a.Log.Warn("detached: no signature over the kernel covers the initramfs and the command line", "bundle", ref)
	}
	return v, nil
}

// Tell reports what an instance does.
func (a *App) Tell(e loader.Event) {
	switch {
	case e.Ready != nil:
		a.Log.Info("the app runs", "since start", e.Since.Round(time.Millisecond))
	case e.Health != nil && e.Health.Output != "":
		a.Log.Info("the app is "+e.Health.Status, "why", e.Health.Output)
	case e.Health != nil:
		a.Log.Info("the app is "+e.Health.Status, "since start", e.Since.Round(time.Millisecond))
	}
}

// Signals are the signals that ask this process to end. While it runs an app, they are meant
// for the app.
type Signals struct {
	caught chan os.Signal
	ended  chan struct{}
}

// CatchSignals keeps signals from ending this process, until Release.
func CatchSignals() *Signals {
	s := &Signals{make(chan os.Signal, 8), make(chan struct{})}
	signal.Notify(s.caught, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	return s
}

// React calls first for the first signal since CatchSignals, and again for each Ctrl-C after
// it. Other signals do nothing more: timeout(1) and closing terminals send them twice. React
// returns at Release.
func (s *Signals) React(first, again func()) {
	react := func(os.Signal) { first() }
	for {
		select {
		case <-s.ended:
			return
		case signal := <-s.caught:
			react(signal)
			react = func(signal os.Signal) {
				if signal == os.Interrupt {
					again()
				}
			}
		}
	}
}

// Release gives the signals their usual effect again, and ends React.
func (s *Signals) Release() {
	signal.Stop(s.caught)
	close(s.ended)
}
