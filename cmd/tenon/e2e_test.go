// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/diff"
)

// These tests use the built programs as their users do, and boot real kernels.
// The Makefile makes what they need and names it in the environment.

func tenon(t *testing.T) string {
	t.Helper()
	return filepath.Join(required(t, "TENON_BIN"), "tenon")
}

func required(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("$%s is not set: run 'make e2e'", name)
	}
	return value
}

// outcome is how a command ended.
type outcome struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

func (o outcome) String() string {
	return fmt.Sprintf("exit status %d after %s\nstdout: %s\nstderr: %s", o.code, o.took.Round(time.Millisecond), o.stdout, o.stderr)
}

func execute(cmd *exec.Cmd) outcome {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	started := time.Now()
	_ = cmd.Run()
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String(), time.Since(started)}
}

func command(t *testing.T, args ...string) outcome {
	t.Helper()
	return execute(exec.CommandContext(t.Context(), tenon(t), args...))
}

// build builds a bundle and returns its path and digest.
func build(t *testing.T, args ...string) (path, digest string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "out.tenon")
	o := command(t, append([]string{"build", "-o", path}, args...)...)
	if o.code != 0 {
		t.Fatalf("tenon build %q: %s", args, o)
	}
	t.Logf("tenon build %q took %s\n%s", args, o.took.Round(time.Millisecond), o.stderr)
	return path, strings.TrimSpace(o.stdout)
}

// file is an entry of a test image.
type file struct {
	tar.Header
	content []byte
}

// image writes an OCI layout with the probe as its app.
func image(t *testing.T, configure func(*v1.Config), files ...file) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "probe")
	compile := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "../../testdata/probe")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("building the probe: %v\n%s", err, out)
	}
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	files = append([]file{
		{tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "bin/probe", Mode: 0o755}, data},
	}, files...)
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, f := range files {
		if f.Typeflag == 0 {
			f.Typeflag, f.Size = tar.TypeReg, int64(len(f.content))
		}
		if err := tw.WriteHeader(&f.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	config := v1.Config{Entrypoint: []string{"/bin/probe"}, Env: []string{"PATH=/bin", "FROM=image"}}
	if configure != nil {
		configure(&config)
	}
	if img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: config, RootFS: must(img.ConfigFile()).RootFS}); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "probe-image")
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

const probeRecipe = "../../testdata/recipes/probe.toml"

// probeImage is the image that most tests boot: with something to drop and a
// hard link.
var probeFiles = []file{
	{tar.Header{Name: "left-out/", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
	{tar.Header{Name: "left-out/file", Mode: 0o644}, []byte("x")},
	{tar.Header{Name: "kept", Mode: 0o4755, Uid: 12, Gid: 34}, []byte("kept")},
	{tar.Header{Name: "linked", Typeflag: tar.TypeLink, Linkname: "kept"}, nil},
}

// probeBundle builds the probe's sealed bundle once for all tests.
func probeBundle(t *testing.T) string {
	t.Helper()
	return theProbe.get(t, func() string {
		path, _ := build(t, "-r", probeRecipe, "--name", "probe", image(t, nil, probeFiles...))
		return path
	})
}

var theProbe shared

// shared is a bundle that outlives the first test that asked for it.
type shared struct {
	once sync.Once
	path string
}

func (s *shared) get(t *testing.T, build func() string) string {
	t.Helper()
	s.once.Do(func() {
		path := filepath.Join(must(os.MkdirTemp("", "tenon-e2e-")), "probe.tenon")
		if err := os.CopyFS(path, os.DirFS(build())); err != nil {
			t.Fatal(err)
		}
		s.path = path
	})
	if s.path == "" {
		t.Fatal("the bundle was not built")
	}
	return s.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, path := range []string{theProbe.path, theProbeBeside.path, keysPath} {
		if path != "" {
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	os.Exit(code)
}

// seen is the part of the probe's report that tests look at.
type seen struct {
	Args, Env, Addresses, Mounts, Kmsg, Writable []string
	UID, GID, CPUs                               int
	Groups                                       []int
	Dir, Hostname, Release, Cmdline, MemTotal    string
	Files, Owners, Texts, Xattrs                 map[string]string
	NoFile                                       syscall.Rlimit
	Terminal                                     string
}

func parseReport(t *testing.T, console string) seen {
	t.Helper()
	for line := range strings.Lines(console) {
		if _, body, ok := strings.Cut(line, "REPORT "); ok {
			var r seen
			if err := json.Unmarshal([]byte(body), &r); err != nil {
				t.Fatalf("report: %v in %q", err, line)
			}
			return r
		}
	}
	t.Fatalf("no report on the console:\n%s", console)
	return seen{}
}

func run(t *testing.T, bundle string, args ...string) outcome {
	t.Helper()
	return command(t, append(append([]string{"run", "--allow-unsigned", "--accel", "tcg"}, args...), bundle)...)
}

// running is a started tenon run.
type running struct {
	cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer // both streams
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.Write(p)
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.output.String()
}

func (r *running) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.output.Reset()
}

func start(t *testing.T, bundle string, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(tenon(t), append(append([]string{"run", "--allow-unsigned", "--accel", "tcg"}, args...), bundle)...)}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.cmd.Process.Kill(); _ = r.cmd.Wait() })
	return r
}

func (r *running) expect(t *testing.T, text string) {
	t.Helper()
	for range 600 {
		if strings.Contains(r.String(), text) {
			return
		}
		if strings.Contains(r.String(), "tenon: error: ") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%q did not come:\n%s", text, r)
}

func (r *running) signalAndWait(t *testing.T, s syscall.Signal) int {
	t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

// TestE2ERedis is the main job: a real image, answered over a forwarded port,
// stopped cleanly with the app's own exit status.
func TestE2ERedis(t *testing.T) {
	bundle, _ := build(t, "oci:"+required(t, "TENON_REDIS_IMAGE"))
	port := freePort(t)
	r := start(t, bundle, "-p", fmt.Sprintf("%d:6379", port), "-e", "TZ=UTC")
	r.expect(t, "the app is healthy")
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	for _, c := range []struct{ send, want string }{
		{"PING\r\n", "+PONG\r\n"},
		{"SET tenon mortise\r\n", "+OK\r\n"},
		{"GET tenon\r\n", "$7\r\n"},
		{"", "mortise\r\n"},
	} {
		fmt.Fprint(conn, c.send)
		if got, err := replies.ReadString('\n'); got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.send, got, err, c.want)
		}
	}
	if code := r.signalAndWait(t, syscall.SIGINT); code != 0 {
		t.Errorf("exit status %d, redis ends with 0 on SIGTERM\n%s", code, r)
	}
	if !strings.Contains(r.String(), "Redis is now ready to exit") {
		t.Errorf("redis did not stop by itself:\n%s", r)
	}
}

// TestE2ENginx boots the other recipe: it must serve, and stop by its own
// signal.
func TestE2ENginx(t *testing.T) {
	bundle, _ := build(t, "oci:"+required(t, "TENON_NGINX_IMAGE"))
	port := freePort(t)
	r := start(t, bundle, "-p", fmt.Sprintf("%d:80", port))
	r.expect(t, "the app is healthy")
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "Welcome to nginx") {
		t.Errorf("got %s, %v: %.200s", resp.Status, err, body)
	}
	if code := r.signalAndWait(t, syscall.SIGTERM); code != 0 || !strings.Contains(r.String(), "SIGQUIT") {
		t.Errorf("exit status %d, nginx ends with 0 on SIGQUIT\n%s", code, r)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestE2EInside checks what an app sees.
func TestE2EInside(t *testing.T) {
	o := run(t, probeBundle(t), "--cpus", "2", "--hostname", "inside", "-e", "COUNT=3")
	if o.code != 0 {
		t.Fatal(o)
	}
	r := parseReport(t, o.stdout)
	if r.Hostname != "inside" || r.CPUs != 2 || r.Dir != "/" || r.UID != 0 || !slices.Equal(r.Args, []string{"/bin/probe"}) {
		t.Errorf("hostname %q, %d CPUs, dir %q, uid %d, args %q", r.Hostname, r.CPUs, r.Dir, r.UID, r.Args)
	}
	for _, want := range []string{"FROM=image", "PATH=/bin", "PROBE=report", "COUNT=3", "HOSTNAME=inside"} {
		if !slices.Contains(r.Env, want) {
			t.Errorf("environment %q lacks %s", r.Env, want)
		}
	}
	for _, want := range []string{"/proc proc", "/sys sysfs", "/dev devtmpfs", "/dev/pts devpts", "/dev/shm tmpfs", "/run tmpfs", "/tmp tmpfs"} {
		if !slices.Contains(r.Mounts, want) {
			t.Errorf("mounts %q lack %s", r.Mounts, want)
		}
	}
	for _, want := range []string{"127.0.0.1/8", "10.0.2.15/24"} {
		if !slices.Contains(r.Addresses, want) {
			t.Errorf("addresses %q lack %s", r.Addresses, want)
		}
	}
	for _, want := range []string{"/dev/stdout", "/proc/self/fd/1", "/dev/null", "/dev/shm/x", "/tmp/x"} {
		if !slices.Contains(r.Writable, want) {
			t.Errorf("%s is not writable", want)
		}
	}
	for name, want := range map[string]string{
		"/.tenon": "", "/left-out/file": "", "/kept": "urwxr-xr-x", "/linked": "urwxr-xr-x", "/etc/resolv.conf": "-rw-r--r--",
	} {
		if got := r.Files[name]; got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !slices.ContainsFunc(r.Kmsg, func(s string) bool { return strings.Contains(s, "ockdown") }) {
		t.Errorf("the kernel is not locked down: %q", r.Kmsg)
	}
}

// TestE2EUser checks USER, WORKDIR and STOPSIGNAL of the image.
func TestE2EUser(t *testing.T) {
	bundle, _ := build(t, "-r", probeRecipe, image(t, func(c *v1.Config) {
		c.User, c.WorkingDir, c.StopSignal, c.Cmd = "app:video", "/made/here", "SIGUSR1", []string{"one", "two"}
	},
		file{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")},
		file{tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\napp:x:1001:\nvideo:x:44:\n")},
	))
	o := run(t, bundle)
	r := parseReport(t, o.stdout)
	if r.UID != 1000 || r.GID != 44 || r.Dir != "/made/here" || !slices.Contains(r.Env, "HOME=/home/app") || len(r.Args) != 3 {
		t.Errorf("uid %d, gid %d, dir %q, env %q, args %q", r.UID, r.GID, r.Dir, r.Env, r.Args)
	}
	if !slices.Contains(r.Writable, "/dev/stdout") {
		t.Errorf("the user cannot open /dev/stdout: %q", r.Writable)
	}
	s := start(t, bundle, "-e", "PROBE=wait")
	s.expect(t, "WAITING")
	if code := s.signalAndWait(t, syscall.SIGTERM); code != 7 || !strings.Contains(s.String(), "GOT user defined signal 1") {
		t.Errorf("exit status %d, want 7 after SIGUSR1:\n%s", code, s)
	}
}

// TestE2EExitStatus checks that run ends as docker run does.
func TestE2EExitStatus(t *testing.T) {
	bundle := probeBundle(t)
	for _, c := range []struct {
		name, probe string
		code        int
		stderr      string
	}{
		{"zero", "exit:0", 0, ""},
		{"own status", "exit:42", 42, ""},
		{"killed by a signal", "signal:9", 137, ""},
		{"children left behind", "orphans", 0, ""},
		{"kernel panic", "panic", 125, "tenon: error: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := run(t, bundle, "-e", "PROBE="+c.probe)
			if o.code != c.code || !strings.Contains(o.stderr, c.stderr) {
				t.Errorf("want exit status %d: %s", c.code, o)
			}
		})
	}
	t.Run("stubborn app is ended", func(t *testing.T) {
		r := start(t, bundle, "--stop-timeout", "1s", "-e", "PROBE=stubborn")
		r.expect(t, "WAITING")
		if code := r.signalAndWait(t, syscall.SIGTERM); code != 137 {
			t.Errorf("exit status %d, want 137 as after docker stop: %s", code, r)
		}
	})
	t.Run("no QEMU outlives tenon", func(t *testing.T) {
		r := start(t, bundle, "-e", "PROBE=stubborn")
		r.expect(t, "WAITING")
		children := strings.Fields(execute(exec.Command("pgrep", "-P", strconv.Itoa(r.cmd.Process.Pid))).stdout)
		if len(children) == 0 {
			t.Fatal("tenon has no child")
		}
		r.signalAndWait(t, syscall.SIGKILL)
		for range 50 {
			gone := true
			for _, pid := range children {
				n := must(strconv.Atoi(pid))
				gone = gone && syscall.Kill(n, 0) == syscall.ESRCH
			}
			if gone {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("still running: %v", children)
	})
}

// TestE2ERunRefuses checks bad input of run: one line, status 125, no boot.
func TestE2ERunRefuses(t *testing.T) {
	bundle := probeBundle(t)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"unsigned", []string{"run", "--cert", testKeys(t) + "/ca.crt", bundle}, "the bundle is not signed"},
		{"for nobody's trust", []string{"run", bundle}, "nothing says whom to trust"},
		{"too little memory", []string{"run", "--allow-unsigned", "-m", "16M", bundle}, "of memory, not 16"},
		{"too many CPUs", []string{"run", "--allow-unsigned", "--cpus", "3", bundle}, "takes 1 to 2 CPUs, not 3"},
		{"undeclared parameter", []string{"run", "--allow-unsigned", "-e", "LD_PRELOAD=/evil.so", bundle}, "LD_PRELOAD is not a parameter"},
		{"wrong type", []string{"run", "--allow-unsigned", "-e", "COUNT=many", bundle}, `COUNT: "many" is not of type int`},
		{"no bundle", []string{"run", "--allow-unsigned", "/nonexistent"}, "no such file"},
		{"port in use", []string{"run", "--allow-unsigned", "-p", usedPort(t) + ":80", bundle}, "QEMU failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := command(t, c.args...)
			if o.code != 125 || !strings.Contains(o.stderr, c.want) || strings.Count(o.stderr, "tenon: error: ") != 1 {
				t.Errorf("want status 125 and one line with %q: %s", c.want, o)
			}
		})
	}
}

func usedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// TestE2EForward checks a server of the probe over a forwarded port.
func TestE2EForward(t *testing.T) {
	port := freePort(t)
	r := start(t, probeBundle(t), "-e", "PROBE=serve", "-p", fmt.Sprintf("%d:8080", port))
	r.expect(t, "the app runs")
	var got string
	for range 100 { // until it listens, QEMU accepts and closes
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		b, _ := io.ReadAll(conn)
		conn.Close()
		if got = string(b); got != "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if got != "hello from probe\n" {
		t.Errorf("got %q", got)
	}
}

// boot boots a kernel under QEMU as a foreign boot loader would: no control
// channel, and whatever initrd and command line it likes.
func boot(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "timeout", append([]string{"60", "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max", "-m", "512", "-nodefaults", "-display", "none", "-no-reboot",
		"-serial", "stdio", "-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,romfile="}, args...)...)
	o := execute(cmd)
	return o.stdout + o.stderr
}

// layerFile copies a layer of a bundle into a file.
func layerFile(t *testing.T, ref string, kernel bool) string {
	t.Helper()
	b, err := bundle.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	mt := bundle.KernelType
	if !kernel {
		mt = bundle.InitramfsType
	}
	r, err := b.OpenLayer(mt)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	path := filepath.Join(t.TempDir(), "layer")
	if err := os.WriteFile(path, must(io.ReadAll(r)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestE2EDHCP boots a sealed kernel without a control channel: the network is
// configured by DHCP, and the built-in defaults hold.
func TestE2EDHCP(t *testing.T) {
	r := parseReport(t, boot(t, "-kernel", layerFile(t, probeBundle(t), true)))
	if !slices.Contains(r.Addresses, "10.0.2.15/24") || r.Hostname != "probe" {
		t.Errorf("addresses %q, hostname %q", r.Addresses, r.Hostname)
	}
}

// TestE2ESealHolds boots a sealed kernel, a detached one and Debian's own with
// the same hostile initrd and command line: they must lose, win and win.
func TestE2ESealHolds(t *testing.T) {
	hostile := []string{"-initrd", hostileInitrd(t), "-append", "console=ttyS0 rdinit=/evil init=/evil lockdown=none bootconfig loglevel=7"}

	sealed := probeBundle(t)
	console := boot(t, append(hostile, "-kernel", layerFile(t, sealed, true))...)
	r := parseReport(t, console)
	if strings.Contains(console, "HOSTILE") || r.Files["/evil"] != "" {
		t.Errorf("sealed: the hostile initrd was unpacked:\n%s", console)
	}
	if want := inspect(t, sealed).CommandLine; r.Cmdline != want {
		t.Errorf("sealed: command line %q, want %q", r.Cmdline, want)
	}
	for _, line := range r.Kmsg {
		// Microcode has no line to look for under emulation: that it is off is
		// checked in the configuration, when the kernel is built.
		for _, bad := range []string{"Table Upgrade", "found in initrd", "Load bootconfig"} {
			if strings.Contains(line, bad) {
				t.Errorf("sealed: the kernel took something from the initrd: %s", line)
			}
		}
	}
	if !slices.ContainsFunc(r.Kmsg, func(s string) bool { return strings.Contains(s, "locked down") }) {
		t.Errorf("sealed: lockdown=none from outside was obeyed: %q", r.Kmsg)
	}

	// What the decompressor reads from outside moves the kernel, and nothing else.
	placed := parseReport(t, boot(t, "-kernel", layerFile(t, sealed, true), "-append", "nokaslr no5lvl mem=300M memmap=16M$0x1000000 hugepages=100"))
	if placed.Cmdline != r.Cmdline || placed.MemTotal != r.MemTotal {
		t.Errorf("sealed: options of the decompressor gave command line %q and %q, want %q and %q", placed.Cmdline, placed.MemTotal, r.Cmdline, r.MemTotal)
	}

	// With a kernel that would take a boot configuration, so that its part is real.
	recipe := filepath.Join(t.TempDir(), "detached.toml")
	if err := os.WriteFile(recipe, append([]byte("config = [\"BOOT_CONFIG=y\"]\n"), must(os.ReadFile(probeRecipe))...), 0o600); err != nil {
		t.Fatal(err)
	}
	detached, _ := build(t, "--detached", "-r", recipe, "--name", "probe", image(t, nil, probeFiles...))
	if o := run(t, detached); !slices.Contains(parseReport(t, o.stdout).Env, "FROM=image") {
		t.Errorf("detached, as tenon runs it: %s", o)
	}
	console = boot(t, append(hostile, "-kernel", layerFile(t, detached, true))...)
	for _, want := range []string{"HOSTILE /evil", "Load bootconfig"} {
		if !strings.Contains(console, want) {
			t.Errorf("detached: no %q: the hostile initrd lost, so this test proves nothing:\n%s", want, console)
		}
	}

	kernels := must(filepath.Glob("/boot/vmlinuz-*"))
	if len(kernels) == 0 {
		t.Fatal("no Debian kernel in /boot")
	}
	console = boot(t, append(hostile, "-kernel", kernels[0])...)
	for _, want := range []string{"HOSTILE /evil", "Table Upgrade: override [DSDT"} {
		if !strings.Contains(console, want) {
			t.Errorf("Debian's kernel: no %q, so that part of the initrd proves nothing:\n%s", want, console)
		}
	}
}

func inspect(t *testing.T, ref string) *manifest.Manifest {
	t.Helper()
	o := command(t, "inspect", "--format", "json", ref)
	var i struct{ Manifest manifest.Manifest }
	if err := json.Unmarshal([]byte(o.stdout), &i); o.code != 0 || err != nil {
		t.Fatalf("%v: %s", err, o)
	}
	return &i.Manifest
}

// TestE2EDiff compares sealed bundles by what is inside their kernels.
func TestE2EDiff(t *testing.T) {
	a := probeBundle(t)
	if o := command(t, "diff", a, a); o.code != 0 || o.stdout+o.stderr != "" {
		t.Errorf("with itself: %s", o)
	}
	changed := slices.Clone(probeFiles)
	changed[2].Mode, changed[2].content = 0o755, []byte("kept, but not as it was")
	changed[3] = file{tar.Header{Name: "linked", Typeflag: tar.TypeSymlink, Linkname: "kept"}, nil}
	b, _ := build(t, "-r", probeRecipe, "--name", "probe", image(t, nil, changed...))
	o := command(t, "diff", "--format", "json", a, b)
	t.Logf("tenon diff took %s", o.took.Round(time.Millisecond))
	var r diff.Report
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || o.code != 1 || o.stderr != "" {
		t.Fatalf("%v: %s", err, o)
	}
	var files []string
	for _, f := range r.Files {
		files = append(files, f.Path+": "+strings.Join(f.What, " "))
	}
	want := []string{"kept: content mode setuid links", "linked: type mode setuid owner links"}
	if !slices.Equal(files, want) || len(r.Options) != 0 {
		t.Errorf("files %q, want %q; options %v", files, want, r.Options)
	}
	text := command(t, "diff", a, b)
	if !strings.Contains(text.stdout, "NO LONGER SETUID, content 4 B to 23 B, mode 4755 to 0755") {
		t.Errorf("as text: %s", text)
	}
}
