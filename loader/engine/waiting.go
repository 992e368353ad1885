// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"time"

	"github.com/tenon-build/tenon/loader/instance"
)

// tellInterval is after how long somebody who waits is told for what, and told again.
const tellInterval = 10 * time.Second

// Waiting says every ten seconds, or as Engine.Tell has it, what is waited for, until stop is called. what may block.
func (e *Engine) Waiting(what func() string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	started := time.Now()
	go func() {
		tick := time.NewTicker(cmp.Or(e.Tell, tellInterval))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				e.Log.Info(what(), "since", time.Since(started).Round(time.Second))
			}
		}
	}()
	return cancel
}

// lockDir takes the directory's lock, and says for whom it waits.
func (e *Engine) lockDir(ctx context.Context) (*instance.Lock, error) {
	defer e.Waiting(func() string {
		return "waiting for " + e.Store().Holder() + ", who has the lock of " + e.Dir
	})()
	return e.Store().Lock(ctx)
}
