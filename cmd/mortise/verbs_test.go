// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/alloc/alloctest"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/loadertest"
	"github.com/tenon-build/tenon/testdata/testbundle"
)

// host is a host that is not there, with a back end that boots nothing.
type host struct {
	t       *testing.T
	dir     string
	kernel  *alloctest.Kernel
	backend *loadertest.Backend
	before  map[string]string

	backends []loader.Backend
	tell     time.Duration
}

// newHost has three cores of two CPUs to give.
func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir(), kernel: alloctest.Machine{CPUs: 8, SMT: 2, Memory: []int64{4096}, IRQs: 4}.Kernel(), backend: &loadertest.Backend{}}
	h.before, h.backends = h.kernel.State(), []loader.Backend{h.backend}
	return h
}

// outcome is how a command line ended.
type outcome struct {
	code           int
	stdout, stderr string
}

func (h *host) mortise(args ...string) outcome {
	var stdout, stderr bytes.Buffer
	a := newApp(&stdout, &stderr)
	a.sysroot, a.backends, a.tell = h.kernel, h.backends, h.tell
	code := a.Run(h.t.Context(), a.newRootCmd(), append([]string{"--root", h.dir + "/mortise"}, args...))
	return outcome{code, stdout.String(), stderr.String()}
}

// good is mortise, with exit status 0.
func (h *host) good(args ...string) string {
	h.t.Helper()
	o := h.mortise(args...)
	if o.code != 0 {
		h.t.Fatalf("%q: %+v", args, o)
	}
	return o.stdout
}

// run runs an instance in this process until end is called.
func (h *host) run(args ...string) (end func() outcome) {
	h.t.Helper()
	started := make(chan bool)
	h.backend.Started = func(*loadertest.Instance) { close(started) }
	ended := make(chan outcome, 1)
	go func() { ended <- h.mortise(args...) }()
	select {
	case <-started:
		for !strings.Contains(h.mortise("ps").stdout, "running") {
			time.Sleep(time.Millisecond)
		}
	case o := <-ended:
		h.t.Fatalf("%q: %+v", args, o)
	}
	h.backend.Started = nil
	return func() outcome {
		select {
		case o := <-ended:
			return o
		case <-time.After(time.Minute):
			h.t.Fatalf("%q does not end", args)
			return outcome{}
		}
	}
}

func (h *host) bundle(change func(*manifest.Manifest)) string {
	h.t.Helper()
	path, _, err := testbundle.Write(h.t.Context(), h.t.TempDir(), nil, "", change)
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

// state is all that a refused verb must leave as it is.
func (h *host) state() map[string]string {
	h.t.Helper()
	out := h.kernel.State()
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&os.ModeSocket != 0 {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = string(data)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// Every verb on an instance in every state that does not allow it: one line, the right
// exit code, and nothing changed.
func TestStates(t *testing.T) {
	const record = "/mortise/x/record.json"
	states := map[string]func(h *host){
		"missing": func(*host) {},
		"created": func(h *host) { h.good("create", "--allow-unsigned", "--name", "x", h.bundle(nil)) },
		"running": func(h *host) { h.run("run", "--allow-unsigned", "--name", "x", h.bundle(nil)) },
		"stopped": func(h *host) {
			end := h.run("run", "--allow-unsigned", "--name", "x", h.bundle(nil))
			h.good("stop", "x")
			h.good("stop", "x") // there is nothing to do any more
			if o := end(); o.code != 0 {
				t.Errorf("%+v", o)
			}
		},
		"half": func(h *host) { // a directory without a record
			h.good("create", "--allow-unsigned", "--name", "x", h.bundle(nil))
			if err := os.Remove(h.dir + record); err != nil {
				t.Fatal(err)
			}
		},
		"foreign": func(h *host) {
			h.good("create", "--allow-unsigned", "--name", "x", h.bundle(nil))
			if err := os.WriteFile(h.dir+record, []byte(`{"version":7,"future":true}`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"corrupt": func(h *host) {
			h.good("create", "--allow-unsigned", "--name", "x", h.bundle(nil))
			if err := os.WriteFile(h.dir+record, []byte(`{"version":1,"name":"x`), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	}
	type row struct {
		state, verb string
		code        int
		want        string
	}
	rows := []row{
		{"created", "stop", 1, `instance "x": cannot stop: it is created, not running`},
		{"created", "kill", 1, `instance "x": cannot kill: it is created, not running`},
		{"created", "kill -s HUP", 1, `instance "x": cannot signal: it is created, not running`},
		{"created", "console --no-stdin", 1, `instance "x": cannot attach to: it is created, not running`},
		{"created", "resize --cpus 2", 1, `instance "x": cannot resize: it is created, not running`},
		{"created", "create --allow-unsigned BUNDLE --name", 1, `instance "x": exists already`},
		{"created", "run --allow-unsigned BUNDLE --name", 125, `instance "x": exists already`},
		{"running", "start --attach", 125, `instance "x": cannot start: it is running, not created`},
		{"running", "rm", 1, `instance "x": cannot remove: it is running, not stopped`},
		{"running", "create --allow-unsigned BUNDLE --name", 1, `instance "x": exists already`},
		{"running", "run --allow-unsigned BUNDLE --name", 125, `instance "x": exists already`},
		{"running", "resize --cpus 5", 1, `planning "x": the claims are 2 to 4 CPUs, not 5`},
		{"running", "resize --memory 1G", 1, `instance "x": its memory cannot change while it runs`},
		{"stopped", "stop --force", 1, `instance "x": cannot kill: it is stopped, not running`},
		{"stopped", "kill", 1, `instance "x": cannot kill: it is stopped, not running`},
		{"stopped", "console --no-stdin", 1, `instance "x": cannot attach to: it is stopped, not running`},
		{"stopped", "resize --cpus 2", 1, `instance "x": cannot resize: it is stopped, not running`},
	}
	for _, verb := range []string{"start --attach", "stop", "stop --force", "kill", "kill -s HUP", "rm", "rm --force", "inspect", "logs", "logs -f", "console --no-stdin", "resize --cpus 2"} {
		code := 1
		if strings.HasPrefix(verb, "start") {
			code = 125
		}
		rows = append(rows, row{"missing", verb, code, `instance "x": no such instance`})
		if verb == "rm --force" {
			continue
		}
		rows = append(rows, row{"half", verb, code, `instance "x": bad record: open `},
			row{"foreign", verb, code, `instance "x": bad record: unsupported version 7`},
			row{"corrupt", verb, code, `instance "x": bad record: unexpected end`})
	}
	for name, prepare := range states {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			prepare(h)
			bundle := h.bundle(nil)
			for _, row := range rows {
				if row.state != name {
					continue
				}
				args := append(strings.Fields(strings.ReplaceAll(row.verb, "BUNDLE", bundle)), "x")
				before := h.state()
				o := h.mortise(args...)
				lines := strings.Split(strings.TrimSpace(o.stderr), "\n")
				for len(lines) > 0 && strings.HasPrefix(lines[0], "mortise: warning: running without a signature") {
					lines = lines[1:]
				}
				if o.code != row.code || o.stdout != "" || len(lines) == 0 || !strings.HasPrefix(lines[0], "mortise: error: "+row.want) ||
					len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "mortise: hint: ") {
					t.Errorf("%s: %+v", row.verb, o)
				}
				if after := h.state(); !reflect.DeepEqual(before, after) {
					t.Errorf("%s changed the host:\n%v\n%v", row.verb, before, after)
				}
			}
			if name == "running" {
				h.good("rm", "--force", "x")
			}
			if name != "missing" && name != "running" {
				h.good("rm", "--force", "x") // whatever it is
			}
			if now := h.kernel.State(); !reflect.DeepEqual(now, h.before) || strings.Contains(h.mortise("ps").stdout, "x ") {
				t.Errorf("%v\n%v", h.before, now)
			}
		})
	}
}

// An instance whose supervisor was killed is there for all verbs, and attended to again.
func TestUnattended(t *testing.T) {
	h := newHost(t)
	b := &loadertest.Survivor{Backend: loadertest.Backend{Target: "cokernel"}, Host: h.kernel}
	h.backend, h.backends = &b.Backend, append(h.backends, b)
	kill := func() {
		b.Forsake()
		dead := exec.Command("true")
		if err := dead.Run(); err != nil {
			t.Fatal(err)
		}
		_, err := (&instance.Store{Dir: h.dir + "/mortise"}).Update(t.Context(), "web", func(r *instance.Record) error { r.Supervisor.PID = dead.Process.Pid; return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	bundle := h.bundle(func(m *manifest.Manifest) { m.Target = "cokernel" })
	plan := h.good("plan", "--allow-unsigned", "--backend", "cokernel", "--cpus", "3", bundle)
	for _, want := range []string{"CPUs 1-2,5 each runs one CPU of the instance; they are offline to the host", "siblings 6 the rest of their cores: held, and offline"} {
		if !strings.Contains(strings.Join(strings.Fields(plan), " "), want) {
			t.Errorf("no %q in\n%s", want, plan)
		}
	}
	h.run("run", "--allow-unsigned", "--backend", "cokernel", bundle)
	for _, verb := range []string{"start --attach", "stop"} {
		kill()
		if text := strings.Join(strings.Fields(h.good("ps")), " "); !strings.Contains(text, " web running (unattended) 1,5 64MiB - web started ") {
			t.Error(text)
		}
		var records []map[string]any
		if err := json.Unmarshal([]byte(h.good("inspect", "web")), &records); err != nil || records[0]["state"] != "running" || records[0]["supervisor"] != nil {
			t.Errorf("%v, %v", err, records)
		}
		if text := strings.Join(strings.Fields(h.good("info")), " "); !strings.Contains(text, "0 0 1 1,5 taken offline web 0 0 2 2,6 online -") || !strings.Contains(text, "back end cokernel: usable; several instances beside the host, resize,") {
			t.Error(text)
		}
		for args, verb := range map[string]string{"console --no-stdin web": "attach to", "logs -f web": "attach to", "resize --cpus 4 web": "resize", "kill -s HUP web": "signal"} {
			want := `mortise: error: instance "web": cannot ` + verb + ": nobody attends to it\nmortise: hint: 'mortise start' attends to it again\n"
			if o := h.mortise(strings.Fields(args)...); o.code != 1 || o.stderr != want {
				t.Errorf("%+v", o)
			}
		}
		if verb == "stop" {
			h.good("stop", "web")
			break
		}
		done := make(chan outcome)
		go func() { done <- h.mortise("start", "--attach", "web") }()
		for strings.Contains(h.good("ps"), "unattended") {
			time.Sleep(time.Millisecond)
		}
		if o := h.mortise("start", "--attach", "web"); o.code != 125 || !strings.HasPrefix(o.stderr, `mortise: error: instance "web": cannot start: it is running, not created`) {
			t.Errorf("%+v", o)
		}
		h.good("resize", "--cpus", "4", "web")
		h.good("stop", "web")
		if o := <-done; o.code != 0 || o.stdout != "signal 15\n" || o.stderr != "" {
			t.Errorf("%+v", o)
		}
		if got := h.good("logs", "web"); got != "booted\nsignal 15\n" {
			t.Errorf("%q", got)
		}
		h.run("start", "--attach", "web")
	}
	if o := h.mortise("kill", "web"); o.code != 1 || !strings.Contains(o.stderr, "it is stopped, not running") {
		t.Errorf("%+v", o)
	}
	now := h.kernel.State()
	if ids, err := b.List(); err != nil || len(ids) > 0 || !reflect.DeepEqual(now, h.before) {
		t.Errorf("%v\n%v\n%q, %v", h.before, now, ids, err)
	}
}

// Who replaces an instance by one that cannot be keeps the old one.
func TestReplace(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle(nil)
	end := h.run("run", "--allow-unsigned", bundle)
	for _, flags := range []string{"--cpus 50", "--env PROT=80"} {
		if o := h.mortise(append(append([]string{"run", "--replace", "--allow-unsigned"}, strings.Fields(flags)...), bundle)...); o.code != 125 {
			t.Errorf("%+v", o)
		}
	}
	if text := h.good("ps"); !strings.Contains(text, "running") {
		t.Error(text)
	}
	next := h.run("run", "--rm", "--replace", "--allow-unsigned", "--cpus", "4", bundle)
	if o := end(); o.code != 137 {
		t.Errorf("%+v", o)
	}
	h.good("stop", "web")
	if o := next(); o.code != 0 {
		t.Errorf("%+v", o)
	}
}

// Values of parameters come from the command line, the environment, and files.
func TestEnv(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle(nil)
	t.Setenv("PORT", "81")
	file := h.dir + "/env"
	if err := os.WriteFile(file, []byte("# a comment\n\nPORT=80\nDEBUG=true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for flags, want := range map[string]map[string]string{
		"--env PORT=1":       {"PORT": "1"},
		"--env PORT":         {"PORT": "81"},
		"--env-file " + file: {"PORT": "80", "DEBUG": "true"},
		"--env-file " + file + " -e PORT -e DEBUG=": nil,
	} {
		args := append(append([]string{"create", "--allow-unsigned"}, strings.Fields(flags)...), bundle)
		if want == nil {
			if o := h.mortise(args...); o.code != 1 || !strings.Contains(o.stderr, `DEBUG: "" is not of type bool`) {
				t.Errorf("%+v", o)
			}
			continue
		}
		h.good(args...)
		r, err := (&instance.Store{Dir: h.dir + "/mortise"}).Get("web")
		if err != nil || !reflect.DeepEqual(r.Request.Env, want) {
			t.Errorf("%s: %v, %+v", flags, err, r)
		}
		h.good("rm", "web")
	}
	for flags, want := range map[string]string{
		"--env =x":                    "--env: a name is missing",
		"--env NOWHERE":               "--env: NOWHERE has no value, and is not set here",
		"--env-file " + h.dir + "/no": "--env-file: open ",
	} {
		if o := h.mortise(append(append([]string{"create", "--allow-unsigned"}, strings.Fields(flags)...), bundle)...); o.code != 2 || !strings.Contains(o.stderr, want) {
			t.Errorf("%s: %+v", flags, o)
		}
	}
}

// What a host cannot give, or others hold, is refused before anything is touched, by
// plan, create and run alike.
func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name, flags string
		change      func(*manifest.Manifest)
		usage       bool
		want        string
	}{
		{name: "another architecture", change: func(m *manifest.Manifest) { m.Platform = "linux/riscv64" }, want: `bundle "web" is built for linux/riscv64, this host is linux/`},
		{name: "another target", change: func(m *manifest.Manifest) { m.Target = "kexec" }, want: `bundle "web": the back end cannot do that: there is no back end "kexec" on this host`},
		{name: "another back end", flags: "--backend qemu", change: func(m *manifest.Manifest) { m.Target = "kexec" }, want: `bundle "web" is built for target kexec, back end qemu cannot boot it`},
		{name: "no such back end", flags: "--backend xen", want: `bundle "web": the back end cannot do that: there is no back end "xen" on this host`},
		{name: "claims above the host", change: func(m *manifest.Manifest) { m.Claims.CPUs = manifest.Range{Min: 64, Max: 128} }, want: `planning "web": 64 CPUs `},
		{name: "memory above the host", change: func(m *manifest.Manifest) { m.Claims.Memory = manifest.Range{Min: 1 << 40, Max: 1 << 41} }, want: `planning "web": 1048576 MiB `},
		{name: "above the claims", flags: "--cpus 5", want: `outside the bundle's claims: "web" takes 2 to 4 CPUs, not 5`},
		{name: "CPUs that are not there", flags: "--cpus 8-9", want: `planning "web": the host has no CPUs 8-9`},
		{name: "no such node", flags: "--node 7", want: `planning "web": the host has no node 7`},
		{name: "devices", flags: "--device 0000:03:00.0", want: `the back end cannot do that: qemu gives no PCI functions`},
		{name: "undeclared variable", flags: "--env LD_PRELOAD=/x", want: `LD_PRELOAD is not a parameter of "web"`},
		{name: "no number", flags: "--cpus two", usage: true, want: `--cpus "two" is neither a number nor a list such as 8-11`},
		{name: "no list", flags: "--cpus 3-1", usage: true, want: `--cpus "3-1" is neither a number nor a list such as 8-11`},
		{name: "no size", flags: "--memory lots", usage: true, want: `--memory "lots" is not a size such as 512M`},
		{name: "no page size", flags: "--huge-pages 1", usage: true, want: `--huge-pages "1" is not a size such as 512M`},
		{name: "no duration", flags: "--hang-timeout -1s", usage: true, want: `--hang-timeout -1s: must not be negative`},
		{name: "bad name", flags: "--name ../x", want: `name "../x" is not a letter or digit`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			h.backend.Lacks.Devices = true
			bundle := h.bundle(test.change)
			for _, verb := range []string{"plan", "create", "run"} {
				if verb == "plan" && test.name == "bad name" {
					continue // it has none
				}
				code := map[string]int{"plan": 1, "create": 1, "run": 125}[verb]
				if test.usage && verb != "run" {
					code = 2
				}
				o := h.mortise(append(append([]string{verb, "--allow-unsigned"}, strings.Fields(test.flags)...), bundle)...)
				if o.code != code || o.stdout != "" || !strings.Contains(o.stderr, "mortise: error: "+test.want) {
					t.Errorf("%s: %+v", verb, o)
				}
			}
			if names, err := (&instance.Store{Dir: h.dir + "/mortise"}).Names(); len(names) > 0 || err != nil || !reflect.DeepEqual(h.kernel.State(), h.before) {
				t.Errorf("%q, %v", names, err)
			}
		})
	}
}

// As many as fit; the next one hears who holds what.
func TestTaken(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle(nil)
	var ends []func() outcome
	for _, name := range []string{"a", "b", "c"} {
		ends = append(ends, h.run("run", "--allow-unsigned", "--name", name, bundle))
	}
	for verb, code := range map[string]int{"plan": 4, "run": 125} {
		o := h.mortise(verb, "--allow-unsigned", "--name", "d", bundle)
		if o.code != code || !strings.Contains(o.stderr, `mortise: error: planning "d": 2 CPUs in whole cores are needed, 0 of 8 are free: CPUs 0,4 are reserved for the host, CPUs 1,5 are held by "a"`) {
			t.Errorf("%s: %+v", verb, o)
		}
	}
	h.good("create", "--allow-unsigned", "--name", "d", bundle) // for when there is room
	h.good("stop", "a")
	if o := ends[0](); o.code != 0 || o.stdout != "booted\nsignal 15\n" {
		t.Errorf("%+v", o)
	}
	ends[0] = h.run("start", "--attach", "d")
	h.good("kill", "b", "c", "d")
	for _, end := range ends {
		if o := end(); o.code != 137 {
			t.Errorf("%+v", o)
		}
	}
	if now := h.kernel.State(); !reflect.DeepEqual(now, h.before) {
		t.Errorf("%v\n%v", h.before, now)
	}
}

// What programs read.
func TestListings(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle(nil)
	if got := h.good("ps", "--format", "json"); got != "[]\n" {
		t.Errorf("%q", got)
	}
	end := h.run("run", "--rm", "--allow-unsigned", "--env", "PORT=80", "-p", "8080:80", bundle)
	var records []map[string]any
	if err := json.Unmarshal([]byte(h.good("ps", "--format", "json")), &records); err != nil || len(records) != 1 {
		t.Fatalf("%v, %v", err, records)
	}
	for key, want := range map[string]any{
		"name": "web", "state": "running", "backend": "qemu", "version": 1.0, "starts": 1.0,
		"held":    map[string]any{"cpus": "1,5", "memory": []any{map[string]any{"node": 0.0, "bytes": 64.0 * (1 << 20)}}, "devices": []any{}},
		"request": map[string]any{"env": map[string]any{"PORT": "***"}, "forwards": []any{"127.0.0.1:8080:80/tcp"}, "hangTimeout": 120e9, "trust": map[string]any{"allowUnsigned": true}},
	} {
		if !reflect.DeepEqual(records[0][key], want) {
			t.Errorf("%s: %v, want %v", key, records[0][key], want)
		}
	}
	if one := h.good("inspect", "web"); !strings.Contains(one, `"state": "running"`) {
		t.Error(one)
	}
	var i info
	if err := json.Unmarshal([]byte(h.good("info", "--format", "json")), &i); err != nil || len(i.Held) != 1 || i.Held[0].Owner != "web" || i.Reserved.CPUs.String() != "0,4" || i.Free[0].CPUs.String() != "2-3,6-7" {
		t.Errorf("%v, %+v", err, i)
	}
	var p alloc.Plan
	if err := json.Unmarshal([]byte(h.good("plan", "--format", "json", "--allow-unsigned", "--cpus", "3", bundle)), &p); err != nil || p.CPUs.String() != "2-3,6" || p.Siblings.String() != "7" {
		t.Errorf("%v, %+v", err, p)
	}
	h.good("resize", "--cpus", "4", "web")
	text := strings.Join(strings.Fields(h.good("ps")), " ")
	if !strings.HasPrefix(text, "NAME STATE CPUS MEMORY HEALTH BUNDLE DETAIL web running 1-2,5-6 64MiB - web started ") {
		t.Error(text)
	}
	if got := h.good("logs", "web"); got != "booted\n" {
		t.Errorf("%q", got)
	}
	h.good("stop", "web")
	if o := end(); o.code != 0 {
		t.Errorf("%+v", o)
	}
	if got := h.good("ps", "--format", "json"); got != "[]\n" {
		t.Errorf("%q", got)
	}
}

func TestConfig(t *testing.T) {
	for _, test := range []struct{ name, text, want string }{
		{"all", "version = 1\nregistries = \"r.toml\"\n[reserve]\ncpus = \"0-1\"\nmemory = \"2GiB\"\ndevices = [\"0000:00:1f.2\"]\n[trust]\npolicy = \"/p\"\nstate = \"../s\"\n[qemu]\naccel = \"tcg\"\n", ""},
		{"empty", "", "version 0: this program reads version 1"},
		{"newer", "version = 2", "version 2: this program reads version 1"},
		{"unknown key", "version = 1\n[reserve]\ncpu = \"0\"", `line 3: unknown key "reserve.cpu"`},
		{"upper case", "version = 1\n[reserve]\nCPUs = \"0\"", `unknown key "CPUs"`},
		{"CPUs", "version = 1\n[reserve]\ncpus = \"all\"", "reserve.cpus: "},
		{"memory", "version = 1\n[reserve]\nmemory = \"lots\"", `reserve.memory: "lots" is not a size`},
		{"device that cannot be", "version = 1\n[reserve]\ndevices = [\"0000:00:1F.2\"]", `reserve.devices: "0000:00:1F.2" is no PCI address`},
		{"accelerator", "version = 1\n[qemu]\naccel = \"xen\"", `qemu.accel: "xen" is neither kvm nor tcg`},
	} {
		c, err := parseConfig([]byte(test.text), "/etc/mortise")
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
		want := hostConfig{reserve: alloc.Reserve{CPUs: alloc.NewCPUSet(0, 1), Memory: 2 << 30, Devices: []string{"0000:00:1f.2"}}, policy: "/p", state: "/etc/s", registries: "/etc/mortise/r.toml", accel: "tcg"}
		if err == nil && !reflect.DeepEqual(c, want) {
			t.Errorf("%+v", c)
		}
	}
	h := newHost(t)
	file := h.dir + "/mortise.toml"
	if err := os.WriteFile(file, []byte("version = 1\n[reserve]\ncpus = \"0-3\"\n[trust]\npolicy = \""+h.dir+"/none\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := h.mortise("plan", "--config", file, "--allow-unsigned", "--cpus", "2-3", h.bundle(nil)); o.code != 4 || !strings.Contains(o.stderr, "CPUs 2-3 are reserved for the host") {
		t.Errorf("%+v", o)
	}
	if o := h.mortise("plan", "--config", file, h.bundle(nil)); o.code != 1 || !strings.Contains(o.stderr, "reading policy: open "+h.dir+"/none") {
		t.Errorf("%+v", o)
	}
	// Without a configuration nothing is placed, but what runs can be looked at and ended.
	h.good("create", "--allow-unsigned", "--name", "one", h.bundle(nil))
	for _, args := range [][]string{{"ps"}, {"inspect", "one"}, {"rm", "one"}} {
		o := h.mortise(append(args, "--config", h.dir+"/missing")...)
		if o.code != 0 || !strings.Contains(o.stderr, "mortise: warning: reading the configuration: open "+h.dir+"/missing: no such file or directory; going on without it") {
			t.Errorf("%q: %+v", args, o)
		}
	}
	if o := h.mortise("info", "--config", h.dir+"/missing"); o.code != 1 || !strings.Contains(o.stderr, "reading the configuration: open ") {
		t.Errorf("%+v", o)
	}
}

// On a terminal, what is typed reaches the app, what it prints comes back, and Ctrl-P
// Ctrl-Q detaches.
func TestConsole(t *testing.T) {
	h := newHost(t)
	end := h.run("run", "--allow-unsigned", h.bundle(nil))
	ours, theirs := terminal(t)
	before := must(unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS))
	stdin := os.Stdin
	os.Stdin = theirs
	defer func() { os.Stdin = stdin }()
	done := make(chan outcome, 1)
	go func() { done <- h.mortise("console", "web") }()
	for deadline := time.Now().Add(time.Minute); must(unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)).Lflag&unix.ICANON != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the terminal does not become raw")
		}
	}
	for _, keys := range []string{"hello\x10", "there\r", "\x10", "\x11"} { // the first Ctrl-P is the app's
		if _, err := ours.WriteString(keys); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	select {
	case o := <-done:
		if o.code != 0 || o.stdout != "hello\x10there\r" || o.stderr != "" {
			t.Errorf("%+v", o)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not detach")
	}
	if after := must(unix.IoctlGetTermios(int(theirs.Fd()), unix.TCGETS)); *after != *before {
		t.Errorf("the terminal was %+v, and is %+v", before, after)
	}
	h.good("stop", "web")
	if o := end(); o.code != 0 {
		t.Errorf("%+v", o)
	}
}

// terminal makes a pair of pty(7).
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours = must(os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0))
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n := must(unix.IoctlGetUint32(int(ours.Fd()), unix.TIOCGPTN))
	theirs = must(os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0))
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// systemd hears when the instance was started.
func TestNotify(t *testing.T) {
	h := newHost(t)
	path := h.dir + "/notify"
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	end := h.run("run", "--allow-unsigned", h.bundle(nil))
	buf := make([]byte, 64)
	if n, err := l.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	h.good("kill", "web")
	if o := end(); o.code != 137 {
		t.Errorf("%+v", o)
	}
}

// An instance is replaced by a bundle of the same name only, whatever its own name is.
func TestReplaceByAnotherBundle(t *testing.T) {
	h := newHost(t)
	named := func(name string) string {
		return h.bundle(func(m *manifest.Manifest) { m.Name = name })
	}
	web, other := named("web"), named("debug-shell")
	end := h.run("run", "--allow-unsigned", "--name", "cache", web)
	o := h.mortise("run", "--replace", "--allow-unsigned", "--name", "cache", other)
	if o.code != 125 || !strings.Contains(o.stderr, `its name is "debug-shell", and "web" is expected`) || !strings.Contains(o.stderr, "hint: if it is the one that you want: --expect-name NAME") {
		t.Errorf("%+v", o)
	}
	h.good("stop", "cache")
	end()
	h.good("create", "--allow-unsigned", "--name", "debug-shell", web)
	if o := h.mortise("run", "--replace", "--allow-unsigned", other); o.code != 125 || !strings.Contains(o.stderr, `its name is "debug-shell", and instance "debug-shell" is of "web"`) {
		t.Errorf("%+v", o)
	}
	next := h.run("run", "--replace", "--rm", "--allow-unsigned", "--name", "cache", "--expect-name", "debug-shell", other)
	h.good("stop", "cache")
	if o := next(); o.code != 0 {
		t.Errorf("%+v", o)
	}
	for _, flags := range [][]string{{"--expect-name", ""}, {"--expect-name", "Web"}} {
		if o := h.mortise(append([]string{"create", "--allow-unsigned", web}, flags...)...); o.code != 2 || !strings.Contains(o.stderr, "--expect-name") {
			t.Errorf("%q: %+v", flags, o)
		}
	}
	// What was expected is expected at each start.
	h.good("create", "--allow-unsigned", "--name", "again", "--expect-name", "web", "--plain-http", web)
	var r []instance.Record
	if err := json.Unmarshal([]byte(h.good("inspect", "again")), &r); err != nil || r[0].Request.Trust.ExpectName != "web" || !r[0].Request.Registries.PlainHTTP {
		t.Errorf("%+v, %v", r, err)
	}
}

// The paths in a configuration are relative to it, wherever mortise is started; what others can
// change is refused.
func TestConfigElsewhere(t *testing.T) {
	h := newHost(t)
	bundle := h.bundle(nil)
	etc := h.dir + "/etc"
	must(0, os.Mkdir(etc, 0o755))
	must(0, os.Mkdir(etc+"/state", 0o755))
	for file, content := range map[string]string{
		"mortise.toml": "version = 1\nregistries = \"registries.toml\"\n[trust]\npolicy = \"policy.toml\"\nstate = \"state\"\n",
		"policy.toml":  "version = 1\n[[identity]]\nname = \"x\"\npublic_key = \"missing.pub\"\nbundles = [\"*\"]\n", "registries.toml": "version = 1\n",
	} {
		must(0, os.WriteFile(filepath.Join(etc, file), []byte(content), 0o644))
	}
	t.Chdir(h.dir)
	if o := h.mortise("verify", "--config", "etc/mortise.toml", bundle); o.code != 1 || !strings.Contains(o.stderr, etc+"/missing.pub: no such file") {
		t.Errorf("%+v", o)
	}
	must(0, os.WriteFile(etc+"/policy.toml", []byte("version = 1\n"), 0o644))
	verify := func() outcome { return h.mortise("verify", "--config", "etc/mortise.toml", bundle) }
	if o := verify(); o.code != 3 || !strings.Contains(o.stderr, "the policy lets nobody sign") {
		t.Errorf("%+v", o)
	}
	for what, mode := range map[string]os.FileMode{"mortise.toml": 0o646, "policy.toml": 0o666, "state": 0o777, ".": 0o757, "registries.toml": 0o646} {
		path := filepath.Join(etc, what)
		before := must(os.Stat(path)).Mode()
		must(0, os.Chmod(path, mode))
		if o := verify(); o.code != 1 || !strings.Contains(o.stderr, fmt.Sprintf("others can change it: %s has the mode %04o, owner ", path, mode)) || !strings.Contains(o.stderr, "hint: 'chown root FILE'") {
			t.Errorf("%s: %+v", what, o)
		}
		must(0, os.Chmod(path, before))
	}
	must(0, os.Mkdir(h.dir+"/shared", 0o755))
	must(0, os.Chmod(h.dir+"/shared", 0o777))
	if o := h.mortise("ps", "--root", h.dir+"/shared/mortise"); o.code != 1 || !strings.Contains(o.stderr, "--root "+h.dir+"/shared/mortise: others can change it") {
		t.Errorf("%+v", o)
	}
	// A registry's certificates come from the configuration that the host's configuration names.
	must(0, os.WriteFile(etc+"/registries.toml", []byte("version = 1\n[[registry]]\nhost = \"redis\"\n"), 0o644))
	if o := verify(); o.code != 1 || !strings.Contains(o.stderr, etc+"/registries.toml: registry 1 (\"redis\"): host: is no registry") {
		t.Errorf("%+v", o)
	}
}
