// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"log/slog"
	"time"

	"github.com/tenon-build/tenon/loader/instance"
)

// tellInterval is after how long somebody who waits is told for what.
const tellInterval = 10 * time.Second

// Waiting says every ten seconds what is waited for, until stop is called. what may block.
func Waiting(log *slog.Logger, what func() string) (stop func()) {
	return waiting(log, tellInterval, what)
}

func waiting(log *slog.Logger, interval time.Duration, what func() string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	started := time.Now()
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				log.Info(what(), "since", time.Since(started).Round(time.Second))
			}
		}
	}()
	return cancel
}

// lockDir takes the directory's lock, and says for whom it waits.
func (e *Engine) lockDir(ctx context.Context) (*instance.Lock, error) {
	defer Waiting(e.Log, func() string {
		return "waiting for " + e.Store().Holder() + ", who has the lock of " + e.Dir
	})()
	return e.Store().Lock(ctx)
}
