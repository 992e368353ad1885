// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/loader/alloc/alloctest"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/signer/strictjson"
)

// gone is a process that has ended.
func gone(t *testing.T) *instance.Process {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := instance.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return p
}

// abandon makes an instance as a supervisor that was killed leaves it: in a state, or
// in none that is recorded, with the host's CPUs.
func (h *host) abandon(t *testing.T, name string, state instance.State) {
	t.Helper()
	v := verified(t, nil)
	h.create(t, name, v, instance.Request{})
	w, err := h.want(v.Manifest(), &instance.Request{})
	if err != nil {
		t.Fatal(err)
	}
	taking, err := h.Host().Begin(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer taking.Close()
	p, err := w.topology.Plan(w.request, h.held(taking.Others))
	if err == nil && state != instance.Created {
		_, err = h.Store().Update(t.Context(), name, func(r *instance.Record) error {
			r.Supervisor, r.Held = gone(t), heldOf(p)
			for _, to := range []instance.State{instance.Loaded, instance.Running, instance.Stopped} {
				if err := r.Transition(to, time.Now()); err != nil || to == state {
					return err
				}
			}
			return nil
		})
	}
	if err == nil {
		_, err = taking.Commit(p)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever a supervisor was at when it was killed, the next who comes gives all back.
func TestRecover(t *testing.T) {
	for _, state := range []instance.State{instance.Created, instance.Loaded, instance.Running, instance.Stopped} {
		h := newHost(t, small)
		h.abandon(t, "web", state)
		if err := h.Recover(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		want := map[instance.State]instance.State{instance.Created: instance.Created, instance.Stopped: instance.Stopped}[state]
		if want == "" {
			want = instance.Failed
		}
		r := h.record(t, "web")
		if r.State != want || !r.Held.Empty() || r.Supervisor != nil || want == instance.Failed && !strings.Contains(r.Reason, "its supervisor, process ") {
			t.Errorf("%s: %+v", state, r)
		}
		h.untouched(t)
		// And it can be run.
		v := verified(t, nil)
		ended := h.run(t, t.Context(), "web", v)
		if err := h.Kill(t.Context(), "web"); err != nil {
			t.Error(err)
		}
		if _, err := ended(); err != nil {
			t.Error(err)
		}
		h.untouched(t)
	}
}

// An instance whose record was removed by hand held something, too.
func TestRecoverWithoutRecord(t *testing.T) {
	h := newHost(t, small)
	h.abandon(t, "web", instance.Running)
	if err := os.RemoveAll(h.Store().Path("web")); err != nil {
		t.Fatal(err)
	}
	if err := h.Recover(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	h.untouched(t)
}

// Damaged records keep nobody from work; gc removes them. Those of another version are
// left to whoever reads them, unless rm --force says otherwise.
func TestGC(t *testing.T) {
	h := newHost(t, alloctest.Machine{CPUs: 16, Memory: []int64{4096}})
	for name, record := range map[string]string{"cut": `{"version":1,`, "empty": "", "half": "-", "newer": `{"version":2}`} {
		h.abandon(t, name, instance.Running)
		file := filepath.Join(h.Store().Path(name), "record.json")
		var err error
		if record == "-" {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, []byte(record), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	v := verified(t, nil)
	h.create(t, "good", v, instance.Request{})
	ended := h.run(t, t.Context(), "good", v)
	if err := h.Stop(t.Context(), "good", 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := ended(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cut", "newer"} {
		if err := h.Remove(t.Context(), name, false); !errors.Is(err, instance.ErrRecord) {
			t.Error(err)
		}
		if err := h.Stop(t.Context(), name, 0, 0); !errors.Is(err, instance.ErrRecord) {
			t.Error(err)
		}
	}
	removed, err := h.GC(t.Context())
	if !slices.Equal(removed, []string{"cut", "empty", "half"}) || !errors.Is(err, strictjson.ErrVersion) {
		t.Errorf("%q, %v", removed, err)
	}
	if err := h.Remove(t.Context(), "newer", true); err != nil {
		t.Error(err)
	}
	names, err := h.Store().Names()
	if !slices.Equal(names, []string{"good"}) || err != nil {
		t.Errorf("%q, %v", names, err)
	}
	h.untouched(t)
}
