// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/instance"
)

// bound is how long any verb may take beside something sick, on a machine that has much else to do:
// what it must not wait for never comes.
const bound = time.Minute

// within is mortise, which must end in time.
func (h *host) within(args ...string) outcome {
	h.t.Helper()
	done := make(chan outcome, 1)
	go func() { done <- h.mortise(args...) }()
	select {
	case o := <-done:
		return o
	case <-time.After(bound):
		h.t.Fatalf("%q does not end within %v", args, bound)
		return outcome{}
	}
}

// process is one of another program, which ends with the test.
func (h *host) process(args ...string) *instance.Process {
	h.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	p, err := instance.Identify(cmd.Process.Pid)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *host) stopped(p *instance.Process) *instance.Process {
	h.t.Helper()
	if err := unix.Kill(p.PID, unix.SIGSTOP); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// lock has another process hold the lock of a directory, and stop.
func (h *host) lock(dir string) {
	h.t.Helper()
	p := h.process("flock", "--no-fork", dir, "sleep", "600")
	for {
		f, err := os.Open(dir)
		if err != nil {
			h.t.Fatal(err)
		}
		held := errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		f.Close()
		if held {
			break
		}
		time.Sleep(time.Millisecond)
	}
	h.stopped(p)
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// sick makes an instance that runs, as its record says, with that supervisor; nil: one that is
// gone.
func (h *host) sick(supervisor *instance.Process) {
	h.t.Helper()
	if supervisor == nil {
		supervisor = &instance.Process{PID: os.Getpid(), Start: 1, BootID: h.process("true").BootID}
	}
	h.good("create", "--allow-unsigned", "--name", "sick", h.bundle(nil))
	_, err := (&instance.Store{Dir: h.dir + "/mortise"}).Update(h.t.Context(), "sick", func(r *instance.Record) error {
		r.Supervisor, r.Held.CPUs = supervisor, "3,7"
		return errors.Join(r.Transition(instance.Loaded, time.Now()), r.Transition(instance.Running, time.Now()))
	})
	h.must(err)
}

// Whatever killed all supervisors of a large host, 'ps' says what became of each instance.
func TestPsOfManyDead(t *testing.T) {
	const many = 1000
	h := newHost(t)
	store := &instance.Store{Dir: h.dir + "/mortise"}
	dead := &instance.Process{PID: os.Getpid(), Start: 1, BootID: h.process("true").BootID}
	lock, err := store.Lock(t.Context())
	h.must(err)
	for i := range many {
		r := &instance.Record{Name: fmt.Sprintf("web%d", i), Backend: "qemu", Bundle: instance.Bundle{Reference: "oci:web", Digest: fmt.Sprintf("sha256:%064d", i), Name: "web"}}
		h.must(lock.Create(r, time.Now()))
		_, err := store.Update(t.Context(), r.Name, func(r *instance.Record) error {
			r.Supervisor, r.Held.CPUs = dead, "3,7"
			return errors.Join(r.Transition(instance.Loaded, time.Now()), r.Transition(instance.Running, time.Now()))
		})
		h.must(err)
	}
	lock.Unlock()
	for _, when := range []string{"the first time", "again"} {
		begin := time.Now()
		out := h.good("ps")
		t.Logf("ps of %d dead instances, %s: %v", many, when, time.Since(begin).Round(time.Millisecond))
		if got := strings.Count(out, "failed"); got != many {
			t.Errorf("%s: %d of %d are shown as failed:\n%.300s", when, got, many, out)
		}
	}
}

func (h *host) sickFile(name string) string { return filepath.Join(h.dir, "mortise", "sick", name) }

// replace puts something else in the place of a file or directory of the sick instance.
func (h *host) replace(name string, put func(path string) error) {
	h.t.Helper()
	path := h.sickFile(name)
	h.must(os.RemoveAll(path))
	h.must(put(path))
}

func fifo(path string) error { return unix.Mkfifo(path, 0o600) }

func content(text string) func(string) error {
	return func(path string) error { return os.WriteFile(path, []byte(text), 0o600) }
}

// fill leaves no room where the instances are.
func (h *host) fill() {
	h.t.Helper()
	h.must(os.WriteFile(h.sickFile("console.log"), make([]byte, 16<<10), 0o600))
	if err := os.WriteFile(h.dir+"/mortise/.fill", make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		h.t.Fatal(err)
	}
}

// conditions are what can be wrong with an instance, or with the directory of all.
var conditions = map[string]struct {
	small bool // the directory has little room
	make  func(h *host)
	full  bool // nothing new can be noted
}{
	"dead supervisor":     {make: func(h *host) { h.sick(nil) }},
	"dead, disk full":     {small: true, full: true, make: func(h *host) { h.sick(nil); h.fill() }},
	"alive, disk full":    {small: true, full: true, make: func(h *host) { h.sick(h.process("sleep", "600")); h.fill() }},
	"hung supervisor":     {make: func(h *host) { h.sick(h.stopped(h.process("sleep", "600"))) }},
	"dead, record locked": {make: func(h *host) { h.sick(nil); h.lock(h.sickFile("")) }},
	"hung, record locked": {make: func(h *host) { h.sick(h.stopped(h.process("sleep", "600"))); h.lock(h.sickFile("")) }},
	"record damaged":      {make: func(h *host) { h.sick(nil); h.replace("record.json", content(`{"version":1,`)) }},
	"record empty":        {make: func(h *host) { h.sick(nil); h.replace("record.json", content("")) }},
	"record newer":        {make: func(h *host) { h.sick(nil); h.replace("record.json", content(`{"version":9}`)) }},
	"record missing":      {make: func(h *host) { h.sick(nil); h.must(os.Remove(h.sickFile("record.json"))) }},
	"record a FIFO":       {make: func(h *host) { h.sick(nil); h.replace("record.json", fifo) }},
	"record a directory": {make: func(h *host) {
		h.sick(nil)
		h.replace("record.json", func(path string) error { return os.Mkdir(path, 0o700) })
	}},
	"record a link": {make: func(h *host) {
		h.sick(nil)
		h.replace("record.json", func(path string) error { return os.Symlink("/dev/zero", path) })
	}},
	"directory a FIFO": {make: func(h *host) { h.sick(nil); h.replace("", fifo) }},
	"directory a file": {make: func(h *host) { h.sick(nil); h.replace("", content("x")) }},
	"directory a link": {make: func(h *host) {
		h.sick(nil)
		h.must(os.Rename(h.sickFile(""), h.dir+"/elsewhere"))
		h.must(os.Symlink(h.dir+"/elsewhere", h.sickFile("")))
	}},
	"files are FIFOs": {make: func(h *host) {
		h.sick(nil)
		for _, name := range []string{"manifest.json", "console.log", "console.log.1", "supervisor.sock", "supervisor.log"} {
			h.replace(name, fifo)
		}
	}},
	"its group cannot be removed": {make: func(h *host) {
		h.sick(nil)
		h.kernel.Put("sys/fs/cgroup/mortise-sick/cgroup.procs", "")
		h.must(os.WriteFile(h.dir+"/mortise/.alloc/alloc.json", []byte(strings.ReplaceAll(string(mustRead(h, h.dir+"/mortise/.alloc/alloc.json")), `"entries":{`,
			`"entries":{"sick":{"state":"releasing","plan":{"cpus":"3","siblings":"7","memory":null,"pageSize":0,"devices":null,"companions":null}},`)), 0o600))
		h.kernel.Fail = func(op, name string) error {
			if strings.Contains(name, "mortise-sick") {
				return unix.EIO
			}
			return nil
		}
	}},
}

func mustRead(h *host, path string) []byte {
	h.t.Helper()
	data, err := os.ReadFile(path)
	h.must(err)
	return data
}

// Whatever is wrong with one instance, and however full the disk is, every verb works on
// another one, in bounded time.
func TestVerbsBesideSick(t *testing.T) {
	for name, condition := range conditions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if condition.small {
				root := h.dir + "/mortise"
				h.must(os.Mkdir(root, 0o700))
				if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=128k,mode=700"); err != nil {
					t.Skip(err) // that takes root
				}
				t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
			}
			bundle := h.bundle(nil)
			end := h.run("run", "--allow-unsigned", bundle)
			h.good("create", "--allow-unsigned", "--name", "idle", bundle)
			condition.make(h)

			looking := make(chan outcome, 1)
			go func() { looking <- h.mortise("console", "--no-stdin", "web") }()
			for _, row := range []struct {
				args string
				code int // 0 is what it is
				want string
				note bool // something has to be noted
			}{
				{"ps", -1, "web", false}, // damaged records are an error, after the others
				{"inspect web", 0, `"name": "web"`, false},
				{"logs web", 0, "booted", false},
				{"info", 0, "web", false},
				{"plan --allow-unsigned " + bundle, 0, "CPUs", false},
				{"verify --allow-unsigned " + bundle, -1, "", false},
				{"kill -s HUP web", 0, "web", false},
				{"resize --cpus 3 web", 0, "", true},
				{"create --allow-unsigned --name other " + bundle, 0, "other", true},
				{"gc", -1, "", false},
				{"rm idle", 0, "idle", false},
				{"stop web", 0, "web", false},
			} {
				if row.args == "gc" && strings.HasPrefix(name, "record ") {
					continue // it removes what is tried here; see TestGC
				}
				o := h.within(strings.Fields(row.args)...)
				if row.note && condition.full {
					if o.code != 1 || !strings.Contains(o.stderr, "no space left on device") {
						t.Errorf("%s: %+v", row.args, o)
					}
					continue
				}
				if row.code == 0 && o.code != 0 || !strings.Contains(o.stdout, row.want) {
					t.Errorf("%s: %+v", row.args, o)
				}
			}
			ended := make(chan outcome, 1)
			go func() { ended <- end() }()
			select {
			case o := <-ended:
				if o.code != 0 {
					t.Errorf("run: %+v", o)
				}
			case <-time.After(bound):
				t.Fatal("web does not end")
			}
			<-looking
			if !condition.full {
				next := h.run("start", "--attach", "web")
				if o := h.within("rm", "--force", "web"); o.code != 0 {
					t.Errorf("rm --force: %+v", o)
				}
				if o := next(); o.code != 125+12 && o.code != 125 { // signal 9, or removed
					t.Errorf("start: %+v", o)
				}
			}

			// The sick one's own verbs end, too.
			for _, args := range []string{"inspect sick", "logs sick", "logs -f sick", "console --no-stdin sick", "kill -s HUP sick"} {
				h.within(strings.Fields(args)...)
			}
			if name == "its group cannot be removed" {
				h.kernel.Fail = nil
			}
			if o := h.within("rm", "--force", "sick"); strings.Contains(name, "locked") != (o.code != 0) && !strings.HasPrefix(name, "directory ") {
				t.Errorf("rm --force sick: %+v", o)
			}
			if condition.full { // that made room
				if o := h.within("create", "--allow-unsigned", "--name", "other", bundle); o.code != 0 {
					t.Errorf("create: %+v", o)
				}
			}
		})
	}
}

// While another process keeps the lock of all instances, or of what is held, who only looks, or
// has to do with one that runs, is not kept waiting; who has to take something hears for whom it waits.
func TestVerbsBesideLock(t *testing.T) {
	for name, dir := range map[string]string{"instances": "", "what is held": "/.alloc"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.tell = 100 * time.Millisecond
			bundle := h.bundle(nil)
			end := h.run("run", "--allow-unsigned", bundle)
			h.lock(h.dir + "/mortise" + dir)
			for args, want := range map[string]string{
				"ps": "web", "inspect web": `"name": "web"`, "logs web": "booted", "info": "web", "plan --allow-unsigned " + bundle: "CPUs", "kill -s HUP web": "web",
			} {
				if o := h.within(strings.Fields(args)...); o.code != 0 || !strings.Contains(o.stdout, want) {
					t.Errorf("%s: %+v", args, o)
				}
			}
			if dir != "" {
				return // the end of web waits, too
			}
			h.within("stop", "web")
			if o := end(); o.code != 0 {
				t.Errorf("%+v", o)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			said := &lines{want: `"sleep" that is stopped, who has the lock of ` + h.dir + `/mortise (since: `, found: cancel}
			a := newApp(io.Discard, said)
			a.sysroot, a.backends, a.tell = h.kernel, h.backends, h.tell
			code := a.Run(ctx, a.newRootCmd(), []string{"--root", h.dir + "/mortise", "create", "--allow-unsigned", "--name", "other", bundle})
			if code != 1 || !strings.Contains(said.text.String(), `mortise: waiting for process `) {
				t.Errorf("%d, %s", code, said.text.String())
			}
		})
	}
}

// lines calls found when what is written has a text.
type lines struct {
	want  string
	found func()

	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.text.Write(p)
	if strings.Contains(l.text.String(), l.want) {
		l.found()
	}
	return n, err
}

// Whoever waits for something else than its output sees that something goes on.
func TestNotSilent(t *testing.T) {
	h := newHost(t)
	h.tell = 50 * time.Millisecond
	end := h.run("run", "--allow-unsigned", h.bundle(nil))
	if o := h.mortise("stop", "--signal", "HUP", "--grace", "300ms", "web"); o.code != 0 || !strings.Contains(o.stderr, "mortise: waiting until web has stopped (since: ") {
		t.Errorf("%+v", o)
	}
	end()
	h.backend.Slow = true
	started := make(chan outcome, 1)
	go func() { started <- h.mortise("start", "--attach", "web") }()
	for !strings.Contains(h.mortise("ps").stdout, "loaded") {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(3 * h.tell)
	h.mortise("kill", "web")
	if o := <-started; !strings.Contains(o.stderr, "mortise: starting web (since: ") {
		t.Errorf("%+v", o)
	}
}

// Values of parameters are nobody's but the app's.
func TestParametersMasked(t *testing.T) {
	h := newHost(t)
	end := h.run("run", "--allow-unsigned", "--env", "PORT=8642", h.bundle(nil))
	for _, args := range []string{"ps --format json", "inspect web", "ps", "inspect --format text web", "info --format json"} {
		o := h.mortise(strings.Fields(args)...)
		if o.code != 0 || strings.Contains(o.stdout+o.stderr, "8642") {
			t.Errorf("%s: %+v", args, o)
		}
		if json := strings.HasPrefix(args, "ps --format json") || args == "inspect web"; json && !strings.Contains(o.stdout, `"PORT": "***"`) {
			t.Errorf("%s: %+v", args, o)
		}
	}
	h.good("stop", "web")
	end()
	ended := h.run("start", "--attach", "web") // with the same values
	if r, err := (&instance.Store{Dir: h.dir + "/mortise"}).Get("web"); err != nil || r.Request.Env["PORT"] != "8642" {
		t.Errorf("%+v, %v", r, err)
	}
	h.good("stop", "web")
	ended()
}

// What can be shown is shown, whatever else was asked for.
func TestInspectSeveral(t *testing.T) {
	h := newHost(t)
	h.good("create", "--allow-unsigned", h.bundle(nil))
	o := h.mortise("inspect", "nobody", "web", "none")
	if o.code != 1 || !strings.Contains(o.stdout, `"name": "web"`) || !strings.Contains(o.stderr, `instance "nobody": no such instance`) || !strings.Contains(o.stderr, `instance "none": no such instance`) {
		t.Errorf("%+v", o)
	}
}

// A control group that has the CPUs is named, with what frees them.
func TestOtherGroupsHint(t *testing.T) {
	for group, want := range map[string]string{
		"system.slice": "mortise: hint: 'systemctl set-property --runtime system.slice AllowedCPUs=' frees them\n",
		"db":           "mortise: hint: 'echo > /sys/fs/cgroup/db/cpuset.cpus' frees them\n",
		"mortise-db":   "mortise: hint: it is of a mortise with another --root, which gives it back\n",
	} {
		h := newHost(t)
		h.must(h.kernel.WriteFile("sys/fs/cgroup/cgroup.subtree_control", []byte("+cpuset")))
		if group != "system.slice" {
			h.must(h.kernel.Mkdir("sys/fs/cgroup/" + group))
		}
		h.must(h.kernel.WriteFile("sys/fs/cgroup/"+group+"/cpuset.cpus", []byte("0-7")))
		o := h.mortise("plan", "--allow-unsigned", h.bundle(nil))
		if o.code != 4 || !strings.Contains(o.stderr, `are in the control group "`+group+`"`) || !strings.HasSuffix(o.stderr, want) {
			t.Errorf("%+v", o)
		}
	}
}
