// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
	"github.com/tenon-build/tenon/loader/instance"
)

// abandonMany makes instances whose supervisors were killed, holding of which have one CPU each.
func (h *host) abandonMany(t testing.TB, count, holding int) {
	t.Helper()
	ctx, s := t.Context(), h.Store()
	dead := &instance.Process{PID: os.Getpid(), Start: 1, BootID: bootOf(t)}
	l, err := s.Lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if err := os.MkdirAll(h.Host().State, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range count {
		r := &instance.Record{Name: fmt.Sprintf("web%d", i), Backend: "qemu", Bundle: instance.Bundle{
			Reference: "oci:web", Digest: fmt.Sprintf("sha256:%064d", i), Name: "web",
		}}
		if err := l.Create(r, time.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := s.Update(ctx, r.Name, func(r *instance.Record) error {
			r.Supervisor, r.Held.CPUs = dead, fmt.Sprint(i+1)
			for _, to := range []instance.State{instance.Loaded, instance.Running} {
				if err := r.Transition(to, time.Now()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if i >= holding {
			continue
		}
		taking, err := h.Host().Begin(context.Background(), r.Name)
		if err == nil {
			_, err = taking.Commit(&alloc.Plan{CPUs: alloc.CPUSet{i + 1}})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func bootOf(t testing.TB) string {
	p, err := instance.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return p.BootID
}

// BenchmarkRecoverMany is what 'mortise ps' does first when all supervisors of 1,000 instances were killed.
func BenchmarkRecoverMany(b *testing.B) {
	for _, holding := range []int{0, 200} {
		b.Run(fmt.Sprintf("holding=%d", holding), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				h := newHost(b, alloctest.Machine{CPUs: 256, Memory: []int64{4096}, IRQs: 64})
				h.abandonMany(b, 1000, holding)
				b.StartTimer()
				if err := h.Recover(b.Context(), ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
