// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/loader/loadertest"
	"github.com/tenon-build/tenon/testdata/testbundle"
)

// host is an Engine on a host that is not there, with a back end that boots nothing.
type host struct {
	*Engine
	kernel  *alloctest.Kernel
	backend *loadertest.Backend
	before  map[string]string
	has     *alloc.Topology
}

func newHost(t testing.TB, m alloctest.Machine) *host {
	t.Helper()
	h := &host{kernel: m.Kernel(), backend: &loadertest.Backend{}}
	h.before = h.kernel.State()
	var err error
	if h.has, err = alloc.Read(h.kernel); err != nil {
		t.Fatal(err)
	}
	h.Engine = &Engine{
		Dir: filepath.Join(t.TempDir(), "mortise"), Root: h.kernel, Backends: []loader.Backend{h.backend},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	return h
}

// small has three cores to give, of two CPUs each.
var small = alloctest.Machine{CPUs: 8, SMT: 2, Memory: []int64{4096}, IRQs: 8}

func verified(t *testing.T, change func(*manifest.Manifest)) *loader.Verified {
	t.Helper()
	path, _, err := testbundle.Write(t.Context(), t.TempDir(), nil, "", change)
	if err != nil {
		t.Fatal(err)
	}
	v, err := loader.Verify(t.Context(), path, loader.Policy{AllowUnsigned: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func (h *host) create(t *testing.T, name string, v *loader.Verified, r instance.Request) {
	t.Helper()
	if _, err := h.Create(t.Context(), name, "oci:web", v, r); err != nil {
		t.Fatal(err)
	}
}

// run starts an instance and returns when it runs; ended gives what Run returned.
func (h *host) run(t *testing.T, ctx context.Context, name string, v *loader.Verified) (ended func() (*instance.Record, error)) {
	t.Helper()
	type result struct {
		r   *instance.Record
		err error
	}
	started, done := make(chan bool), make(chan result, 1)
	go func() {
		r, err := h.Run(ctx, name, v, Options{Started: func() error { close(started); return nil }, Grace: time.Minute})
		done <- result{r, err}
	}()
	select {
	case <-started:
	case r := <-done:
		t.Fatalf("%q did not start: %v", name, r.err)
	}
	return func() (*instance.Record, error) {
		select {
		case r := <-done:
			return r.r, r.err
		case <-time.After(time.Minute):
			t.Fatalf("%q does not end", name)
			return nil, nil
		}
	}
}

// newWeb is a host on which an instance runs, as the back end sees it.
func newWeb(t *testing.T) (h *host, box *loadertest.Instance, ended func() (*instance.Record, error)) {
	t.Helper()
	h = newHost(t, small)
	h.backend.Started = func(i *loadertest.Instance) { box = i }
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{})
	ended = h.run(t, t.Context(), "web", v)
	return h, box, ended
}

// stop stops an instance and waits for its end.
func (h *host) stop(t *testing.T, name string, ended func() (*instance.Record, error)) {
	t.Helper()
	if err := h.Stop(t.Context(), name, 0, time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := ended(); err != nil {
		t.Error(err)
	}
}

func (h *host) record(t *testing.T, name string) *instance.Record {
	t.Helper()
	r, err := h.Store().Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// untouched says that the host is as it was, and that nobody holds anything.
func (h *host) untouched(t *testing.T) {
	t.Helper()
	if now := h.kernel.State(); !reflect.DeepEqual(now, h.before) {
		t.Errorf("the host is not as it was:\n%v\n%v", h.before, now)
	}
	if now, err := alloc.Read(h.kernel); err != nil || !reflect.DeepEqual(now, h.has) {
		t.Errorf("the host has not what it had: %v\n%+v\n%+v", err, h.has, now)
	}
	if held, err := h.Host().Held(); len(held) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, %v", held, err)
	}
}

func TestLife(t *testing.T) {
	h := newHost(t, small)
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{Settings: loader.Settings{Env: map[string]string{"PORT": "80"}, Hostname: "front"}})
	h.untouched(t)
	ended := h.run(t, t.Context(), "web", v)
	r := h.record(t, "web")
	if r.State != instance.Running || r.Held.CPUs != "1,5" || r.Starts != 1 || r.Supervisor.PID != os.Getpid() {
		t.Errorf("%+v", r)
	}
	if groups := h.kernel.Groups(); len(groups) != 1 {
		t.Errorf("%v", groups)
	}
	for _, check := range []struct {
		verb string
		err  error
	}{{"start", func() error { _, err := h.Run(t.Context(), "web", v, Options{}); return err }()}, {"remove", h.Remove(t.Context(), "web", false)}} {
		if e := new(instance.TransitionError); !errors.As(check.err, &e) || e.Verb != check.verb || e.State != instance.Running {
			t.Errorf("%s: %v", check.verb, check.err)
		}
	}
	if err := h.Stop(t.Context(), "web", 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	h.untouched(t)
	if r, err := ended(); err != nil || r.State != instance.Stopped || r.Exit == nil || *r.Exit != (control.Exit{}) || !r.Held.Empty() || r.Supervisor != nil {
		t.Errorf("%+v, %v", r, err)
	}
	var log strings.Builder
	if err := h.Logs("web", &log); err != nil || log.String() != "booted\nsignal 15\n" {
		t.Errorf("%q, %v", log.String(), err)
	}

	// Again, and killed.
	ended = h.run(t, t.Context(), "web", v)
	if err := h.Kill(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if r, err := ended(); err != nil || r.State != instance.Stopped || r.Exit.Signal != 9 || r.Starts != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := h.Stop(t.Context(), "web", 0, 0); err != nil { // it has ended already
		t.Error(err)
	}
	if err := h.Remove(t.Context(), "web", false); err != nil {
		t.Error(err)
	}
	if err := h.Remove(t.Context(), "web", false); !errors.Is(err, instance.ErrNotFound) {
		t.Error(err)
	}
	h.untouched(t)
}

// The end of the context asks the app; when it does not obey, the machine ends.
func TestStopping(t *testing.T) {
	h := newHost(t, small)
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := h.run(t, ctx, "web", v)
	cancel()
	if r, err := ended(); err != nil || *r.Exit != (control.Exit{}) {
		t.Errorf("%+v, %v", r, err)
	}
	ended = h.run(t, t.Context(), "web", v)
	if err := h.Signal(t.Context(), "web", int(unix.SIGHUP)); err != nil {
		t.Error(err)
	}
	if err := h.Stop(t.Context(), "web", int(unix.SIGINT), 10*time.Millisecond); err != nil { // it ignores that
		t.Error(err)
	}
	if r, err := ended(); err != nil || r.Exit.Signal != 9 {
		t.Errorf("%+v, %v", r, err)
	}
	var log strings.Builder
	if err := h.Logs("web", &log); err != nil || log.String() != "booted\nsignal 1\nsignal 2\n" {
		t.Errorf("%q, %v", log.String(), err)
	}
	h.untouched(t)
}

// What goes wrong leaves the host as it was, and the reason in the record.
func TestFailures(t *testing.T) {
	v := verified(t, nil)
	for _, test := range []struct {
		name   string
		break_ func(*host, *instance.Request)
		want   string
	}{
		{"load", func(h *host, _ *instance.Request) { h.backend.LoadErr = errors.New("no such\nmachine") }, "no such; machine"},
		{"refused", func(h *host, _ *instance.Request) {
			h.backend.LoadErr = fmt.Errorf("%w by the kernel", loader.ErrRefused)
		}, "refused by the kernel"},
		{"panic", func(h *host, _ *instance.Request) {
			h.backend.Started = func(i *loadertest.Instance) { i.End(nil, errors.New("it panicked")) }
		}, "it panicked"},
		{"hang", func(_ *host, r *instance.Request) { r.HangTimeout = time.Second }, "nothing was heard of it for 1s: it hung, and was ended"},
		{"started", nil, "nobody is there"},
		{"cgroup", func(h *host, _ *instance.Request) {
			h.kernel.Fail = func(op, name string) error {
				if strings.HasSuffix(name, "cpuset.cpus") {
					return unix.ENOSPC
				}
				return nil
			}
		}, `taking CPUs for "web": write 1,5 to sys/fs/cgroup/mortise-web/cpuset.cpus: no space left on device`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t, small)
			var r instance.Request
			o := Options{}
			if test.break_ != nil {
				test.break_(h, &r)
			} else {
				o.Started = func() error { return errors.New(test.want) }
			}
			h.create(t, "web", v, r)
			_, err := h.Run(t.Context(), "web", v, o)
			switch test.name {
			case "cgroup":
				if err == nil || err.Error() != test.want {
					t.Error(err)
				}
			case "refused":
				if !errors.Is(err, loader.ErrRefused) {
					t.Error(err)
				}
			default:
				if err != nil {
					t.Error(err)
				}
			}
			if r := h.record(t, "web"); r.State != instance.Failed || r.Reason != test.want || !r.Held.Empty() || r.Supervisor != nil {
				t.Errorf("%+v", r)
			}
			h.untouched(t)
		})
	}
}

// The next one that does not fit is refused and hears who holds what; it can be
// created, and started when there is room.
func TestTaken(t *testing.T) {
	h := newHost(t, small)
	v := verified(t, nil)
	var ended []func() (*instance.Record, error)
	for i := range 4 {
		h.create(t, fmt.Sprint("web", i), v, instance.Request{})
		if i < 3 {
			ended = append(ended, h.run(t, t.Context(), fmt.Sprint("web", i), v))
		}
	}
	_, err := h.Run(t.Context(), "web3", v, Options{})
	e := new(alloc.PlanError)
	if !errors.As(err, &e) || e.Kind != alloc.ErrTaken || !slices.Equal(e.Holders, []string{"web0", "web1", "web2"}) || !strings.HasPrefix(err.Error(), `planning "web3": `) {
		t.Fatal(err)
	}
	if r := h.record(t, "web3"); r.State != instance.Created || r.Starts != 0 {
		t.Errorf("%+v", r)
	}
	if err := h.Remove(t.Context(), "web1", true); err != nil {
		t.Fatal(err)
	}
	ended[1] = h.run(t, t.Context(), "web3", v)
	for _, name := range []string{"web0", "web2", "web3"} {
		if err := h.Stop(t.Context(), name, 0, time.Minute); err != nil {
			t.Error(err)
		}
	}
	for _, end := range ended {
		if _, err := end(); err != nil {
			t.Error(err)
		}
	}
	h.untouched(t)
}

// Twenty at once, on a host that was recorded: each has CPUs of its own.
func TestTwentyAtOnce(t *testing.T) {
	machine := alloctest.Machine{CPUs: 64, SMT: 2, Nodes: 2, Memory: []int64{65536}, IRQs: 32}
	recording := filepath.Join(t.TempDir(), "host.tar")
	f, err := os.Create(recording)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := alloc.Record(machine.Kernel(), f); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	replayed, err := alloc.Replay(f)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, small)
	h.kernel = alloctest.FromRecording(replayed)
	h.Root, h.before = h.kernel, h.kernel.State()
	if h.has, err = alloc.Read(h.kernel); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var all []int
	running := make(chan bool, 20)
	h.backend.Started = func(i *loadertest.Instance) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, i.CPUs()...)
	}
	v := verified(t, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprint("web", i)
			if _, err := h.Create(t.Context(), name, "oci:web", v, instance.Request{}); err != nil {
				t.Error(err)
			}
			r, err := h.Run(t.Context(), name, v, Options{Started: func() error { running <- true; return nil }})
			if err != nil || r.State != instance.Stopped {
				t.Errorf("%+v, %v", r, err)
				running <- false
			}
		})
	}
	for range 20 {
		<-running
	}
	if set := alloc.NewCPUSet(all...); len(set) != 40 || len(all) != 40 || len(h.kernel.Groups()) != 20 {
		t.Errorf("%s of %d, %v", set, len(all), h.kernel.Groups())
	}
	for i := range 20 {
		wg.Go(func() {
			if err := h.Stop(t.Context(), fmt.Sprint("web", i), 0, time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.untouched(t)
}

func TestResize(t *testing.T) {
	h, box, ended := newWeb(t)
	for _, test := range []struct {
		cpus       int
		refuse     bool
		want, held string
		err        string
	}{
		{4, false, "1-2,5-6", "1-2,5-6", ""},
		{3, false, "1-2,5", "1-2,5-6", ""},
		{3, false, "1-2,5", "1-2,5-6", ""},
		{5, false, "1-2,5", "1-2,5-6", "the claims are 2 to 4 CPUs, not 5"},
		{1, false, "1-2,5", "1-2,5-6", "the claims are 2 to 4 CPUs, not 1"},
		{2, true, "1-2,5", "1-2,5-6", "the guest says no"},
		{4, true, "1-2,5", "1-2,5-6", "the guest says no"},
		{2, false, "1,5", "1,5", ""},
	} {
		before := box.CPUs()
		h.backend.Refuse = func(cpus alloc.CPUSet) error {
			if test.refuse && len(cpus) != len(before) {
				return errors.New("the guest says no")
			}
			return nil
		}
		err := h.Resize(t.Context(), "web", test.cpus)
		if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("to %d: %v", test.cpus, err)
		}
		if r := h.record(t, "web"); box.CPUs().String() != test.want || r.Held.CPUs != test.held {
			t.Errorf("to %d: %s, %s", test.cpus, box.CPUs(), r.Held.CPUs)
		}
	}
	h.backend.Lacks.Resize = true
	if err := h.Resize(t.Context(), "web", 3); err == nil || !strings.Contains(err.Error(), "cannot resize") {
		t.Error(err)
	}
	h.stop(t, "web", ended)
	h.untouched(t)
}

// Whoever takes the partition away, as systemd does, does not have it for long.
func TestGuard(t *testing.T) {
	h, _, ended := newWeb(t)
	held := h.kernel.State()
	if err := h.kernel.WriteFile("sys/fs/cgroup/cgroup.subtree_control", []byte("-cpuset")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the CPUs are not taken again", func() bool { return reflect.DeepEqual(h.kernel.State(), held) })
	h.stop(t, "web", ended)
	h.untouched(t)
}

// eventually waits until something is so. Else the test ends with a message.
func eventually(t *testing.T, message string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(message)
		}
	}
}

// While the CPUs cannot be taken again, the instance goes on, and the engine tries again.
func TestGuardFails(t *testing.T) {
	h := newHost(t, small)
	var broken, refused atomic.Int32
	h.kernel.Fail = func(op, name string) error {
		if broken.Load() != 0 && op == "write" && strings.HasSuffix(name, "/cpuset.cpus.partition") {
			refused.Add(1)
			return unix.EBUSY
		}
		return nil
	}
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{})
	ended := h.run(t, t.Context(), "web", v)
	held := h.kernel.State()
	broken.Store(1)
	if err := h.kernel.WriteFile("sys/fs/cgroup/cgroup.subtree_control", []byte("-cpuset")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it was tried once at most", func() bool { return refused.Load() > 2 })
	broken.Store(0)
	eventually(t, "the CPUs are not taken again", func() bool { return reflect.DeepEqual(h.kernel.State(), held) })
	h.stop(t, "web", ended)
	h.untouched(t)
}

// What runs under another directory by the same name is not touched.
func TestOtherDirectory(t *testing.T) {
	h, _, ended := newWeb(t)
	bystander := exec.Command("sleep", "60")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bystander.Process.Kill(); _ = bystander.Wait() }()
	const procs = "sys/fs/cgroup/mortise-web/cgroup.procs"
	h.kernel.Put(procs, fmt.Sprintln(bystander.Process.Pid))
	v := verified(t, nil)
	other := newHost(t, small)
	other.kernel, other.Root = h.kernel, h.kernel
	other.create(t, "web", v, instance.Request{CPUList: alloc.NewCPUSet(2, 6)})
	if _, err := other.Run(t.Context(), "web", v, Options{}); err == nil || !strings.Contains(err.Error(), "is there already, and not in the journal") {
		t.Error(err)
	}
	if p, err := instance.Identify(bystander.Process.Pid); err != nil {
		t.Error(err)
	} else if alive, err := p.Alive(); !alive || err != nil {
		t.Errorf("it was killed: %v", err)
	}
	h.kernel.Put(procs, "")
	h.stop(t, "web", ended)
	h.untouched(t)
}

// A guest that dies while it is resized leaves nothing held.
func TestDiesResizing(t *testing.T) {
	h, box, ended := newWeb(t)
	h.backend.Refuse = func(alloc.CPUSet) error {
		box.End(nil, errors.New("it panicked"))
		time.Sleep(10 * time.Millisecond)
		return errors.New("the guest is gone")
	}
	if err := h.Resize(t.Context(), "web", 4); err == nil {
		t.Error("no error")
	}
	if r, err := ended(); err != nil || r.State != instance.Failed || !r.Held.Empty() {
		t.Errorf("%+v, %v", r, err)
	}
	h.untouched(t)
}

// What is being started can be ended, too.
func TestAbort(t *testing.T) {
	h := newHost(t, small)
	h.backend.Slow = true
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{})
	for _, end := range []func(cancel func()) error{
		func(func()) error { return h.Stop(t.Context(), "web", 0, time.Minute) },
		func(func()) error { return h.Kill(t.Context(), "web") },
		func(cancel func()) error { cancel(); return nil },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan *instance.Record)
		go func() {
			r, err := h.Run(ctx, "web", v, Options{})
			if err != nil {
				t.Error(err)
			}
			done <- r
		}()
		for {
			if _, err := os.Lstat(filepath.Join(h.Store().Path("web"), socketFile)); err == nil && h.record(t, "web").State == instance.Loaded {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err := end(cancel); err != nil {
			t.Error(err)
		}
		if r := <-done; r == nil || r.State != instance.Failed || !r.Held.Empty() {
			t.Errorf("%+v", r)
		}
		h.untouched(t)
	}
}

// Who removes its own instance leaves another one of that name alone.
func TestRemoveOwn(t *testing.T) {
	h := newHost(t, small)
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{})
	old := h.record(t, "web")
	if err := errors.Join(h.RemoveOwn(t.Context(), old), h.RemoveOwn(t.Context(), old)); err != nil {
		t.Error(err)
	}
	h.create(t, "web", v, instance.Request{})
	if err := h.RemoveOwn(t.Context(), old); err != nil {
		t.Error(err)
	}
	h.record(t, "web")
	if _, err := h.Create(t.Context(), "large", "oci:web", v, instance.Request{Settings: loader.Settings{Hostname: strings.Repeat("x", limit.Request)}}); err == nil || !strings.Contains(err.Error(), "are too long") {
		t.Error(err)
	}
}

func TestAttach(t *testing.T) {
	h := newHost(t, small)
	v := verified(t, nil)
	h.create(t, "web", v, instance.Request{})
	if _, err := h.Attach(t.Context(), "web", true, true); !errors.As(err, new(*instance.TransitionError)) {
		t.Error(err)
	}
	ended := h.run(t, t.Context(), "web", v)
	one, err := h.Attach(t.Context(), "web", true, true)
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.Attach(t.Context(), "web", true, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(one, "hello\n"); err != nil {
		t.Error(err)
	}
	buf := make([]byte, len("booted\nhello\n"))
	if _, err := io.ReadFull(two, buf); err != nil || string(buf) != "booted\nhello\n" {
		t.Errorf("%q, %v", buf, err)
	}
	two.Close()
	if err := h.Stop(t.Context(), "web", 0, time.Minute); err != nil {
		t.Error(err)
	}
	if all, err := io.ReadAll(one); err != nil || string(all) != "booted\nhello\nsignal 15\n" {
		t.Errorf("%q, %v", all, err)
	}
	one.Close()
	if _, err := ended(); err != nil {
		t.Error(err)
	}
}
