// SPDX-License-Identifier: Apache-2.0

// Package memory measures what a function takes.
package memory

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Peak returns the most memory, in bytes, that do had on the heap at any time, beyond what there
// was before, with at most a quarter more of garbage. It looks every millisecond.
func Peak(do func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(25))
	runtime.GC()
	before, most := heap(), uint64(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	for {
		most = max(most, heap())
		select {
		case <-done:
			return max(most, heap(), before) - before
		case <-time.After(time.Millisecond):
		}
	}
}

func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
