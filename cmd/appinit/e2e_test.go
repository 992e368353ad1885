// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"archive/tar"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// These tests look at PID 1: what docker's users expect of the place where their image runs.

// TestE2EInside checks what an app sees.
func TestE2EInside(t *testing.T) {
	o := e2e.Run(t, e2e.Probe(t), "--cpus", "2", "--hostname", "inside", "-e", "COUNT=3")
	if o.Code != 0 {
		t.Fatal(o)
	}
	r := e2e.ParseReport(t, o.Stdout)
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

// These tests look at PID 1: what docker's users expect of the place where
// their image runs.

// TestE2EMachine checks what every app finds.
func TestE2EMachine(t *testing.T) {
	r := e2e.ParseReport(t, e2e.Run(t, e2e.Probe(t), "--hostname", "web").Stdout)
	if want := (syscall.Rlimit{Cur: 1 << 20, Max: 1 << 20}); r.NoFile != want {
		t.Errorf("open files: %+v, want %+v", r.NoFile, want)
	}
	if r.Terminal != "/dev/pts/0" {
		t.Errorf("a new terminal: %s", r.Terminal)
	}
	for _, want := range []string{"/dev/mqueue mqueue", "/sys/fs/cgroup cgroup2"} {
		if !slices.Contains(r.Mounts, want) {
			t.Errorf("mounts %q lack %s", r.Mounts, want)
		}
	}
	for _, want := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(strings.Fields(r.Texts["/sys/fs/cgroup/cgroup.controllers"]), want) {
			t.Errorf("controllers %q lack %s", r.Texts["/sys/fs/cgroup/cgroup.controllers"], want)
		}
	}
	if !slices.Contains(r.Addresses, "::1/128") {
		t.Errorf("addresses %q lack ::1", r.Addresses)
	}
	for name, want := range map[string]string{
		"/etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost", "/etc/hostname": "web", "/etc/resolv.conf": "nameserver 10.0.2.3",
	} {
		if !strings.HasPrefix(r.Texts[name], want) {
			t.Errorf("%s is %q", name, r.Texts[name])
		}
	}
	if !strings.HasSuffix(r.Texts["/etc/hosts"], "\n10.0.2.15\tweb") {
		t.Errorf("/etc/hosts lacks the machine's own name: %q", r.Texts["/etc/hosts"])
	}
}

// TestE2EUser checks USER, WORKDIR and STOPSIGNAL of the image.
func TestE2EUser(t *testing.T) {
	bundle, _ := e2e.Build(t, "-r", e2e.ProbeRecipe(), e2e.Image(t, func(c *v1.Config) {
		c.User, c.WorkingDir, c.StopSignal, c.Cmd = "app:video", "/made/here", "SIGUSR1", []string{"one", "two"}
	},
		e2e.File{Header: tar.Header{Name: "etc/passwd", Mode: 0o644}, Content: []byte("root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")},
		e2e.File{Header: tar.Header{Name: "etc/group", Mode: 0o644}, Content: []byte("root:x:0:\napp:x:1001:\nvideo:x:44:\n")},
	))
	o := e2e.Run(t, bundle)
	r := e2e.ParseReport(t, o.Stdout)
	if r.UID != 1000 || r.GID != 44 || r.Dir != "/made/here" || !slices.Contains(r.Env, "HOME=/home/app") || len(r.Args) != 3 {
		t.Errorf("uid %d, gid %d, dir %q, env %q, args %q", r.UID, r.GID, r.Dir, r.Env, r.Args)
	}
	if !slices.Contains(r.Writable, "/dev/stdout") {
		t.Errorf("the user cannot open /dev/stdout: %q", r.Writable)
	}
	s := e2e.Start(t, bundle, "-e", "PROBE=wait")
	s.Expect(t, "WAITING")
	if code := s.SignalAndWait(t, syscall.SIGTERM); code != 7 || !strings.Contains(s.String(), "GOT user defined signal 1") {
		t.Errorf("exit status %d, want 7 after SIGUSR1:\n%s", code, s)
	}
}

// TestE2EPIDNamespace checks an app that is PID 1 of a namespace: what it sees, what signals do, how
// it ends, and that its health check is beside it.
func TestE2EPIDNamespace(t *testing.T) {
	recipe := filepath.Join(t.TempDir(), "pid1.toml")
	text := strings.Replace(string(e2e.Must(os.ReadFile(e2e.ProbeRecipe()))), "[claims]", "[app]\npid_namespace = true\n\n[claims]", 1)
	if err := os.WriteFile(recipe, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, _ := e2e.Build(t, "-r", recipe, e2e.Image(t, func(c *v1.Config) {
		c.User, c.WorkingDir, c.Cmd = "1000:44", "/made/here", []string{"one"}
		c.Healthcheck = &v1.HealthConfig{Test: []string{"CMD", "/bin/probe", "beside"}, Interval: time.Second}
	}, e2e.File{Header: tar.Header{Name: "acl", Mode: 0o640, PAXRecords: map[string]string{"SCHILY.acl.access": "user::rw-,user:bob:r--:4321,group::r--,mask::r--,other::---"}}}))
	o := e2e.Run(t, bundle)
	r := e2e.ParseReport(t, o.Stdout)
	if o.Code != 0 || r.PID != 1 || r.Self != "1" || r.UID != 1000 || r.GID != 44 || r.Dir != "/made/here" || len(r.Args) != 2 || !slices.Equal(r.Groups, []int{44}) {
		t.Errorf("status %d, pid %d (%s), uid %d, gid %d, groups %v, dir %q, args %q", o.Code, r.PID, r.Self, r.UID, r.GID, r.Groups, r.Dir, r.Args)
	}
	s := e2e.Start(t, bundle, "-e", "PROBE=wait")
	s.Expect(t, "WAITING")
	s.Expect(t, "the app is healthy")
	if code := s.SignalAndWait(t, syscall.SIGTERM); code != 7 || !strings.Contains(s.String(), "GOT terminated") {
		t.Errorf("exit status %d, want 7 after SIGTERM:\n%s", code, s)
	}
	if o := e2e.Run(t, bundle, "-e", "PROBE=exit:9"); o.Code != 9 {
		t.Errorf("status %d, want 9: %s", o.Code, o)
	}
}

// TestE2EDHCP boots a sealed kernel without a control channel: the network is
// configured by DHCP, and the built-in defaults hold.
func TestE2EDHCP(t *testing.T) {
	ref := e2e.Probe(t)
	r := e2e.ParseReport(t, e2e.Boot(t, "-kernel", e2e.LayerFile(t, ref, bundle.KernelType), "-initrd", e2e.LayerFile(t, ref, bundle.InitramfsType)))
	if !slices.Contains(r.Addresses, "10.0.2.15/24") || r.Hostname != "probe" {
		t.Errorf("addresses %q, hostname %q", r.Addresses, r.Hostname)
	}
}

// volumeFiles are what an image has where its volume is.
var volumeFiles = []e2e.File{
	{Header: tar.Header{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o2750, Uid: 7, Gid: 8}},
	{Header: tar.Header{Name: "data/file", Mode: 0o640, Uid: 7, Gid: 9}, Content: []byte("from the image")},
	{Header: tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}},
	{Header: tar.Header{Name: "etc/hosts", Mode: 0o600}, Content: []byte("1.2.3.4 evil\n")},
	{Header: tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}},
	{Header: tar.Header{Name: "tmp/file", Mode: 0o644}, Content: []byte("x")},
}

// TestE2EVolumes checks the image's VOLUMEs, with a root that can be written
// and with one that cannot.
func TestE2EVolumes(t *testing.T) {
	ref := e2e.Image(t, func(c *v1.Config) {
		c.Volumes = map[string]struct{}{"/data": {}, "/data/deep/": {}, "/made": {}}
	}, volumeFiles...)
	recipe := filepath.Join(t.TempDir(), "read-only.toml")
	text := strings.Replace(string(e2e.Must(os.ReadFile(e2e.ProbeRecipe()))), "[claims]", "[app]\nread_only = true\n\n[claims]", 1)
	if err := os.WriteFile(recipe, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	inside := []string{"/tmp/x", "/run/x", "/dev/shm/x", "/data/x", "/data/deep/x", "/etc/hosts", "/dev/null"}
	outside := []string{"/x", "/etc/x"}
	for _, c := range []struct {
		name, recipe string
		readOnly     bool
	}{{"writable", e2e.ProbeRecipe(), false}, {"read-only", recipe, true}} {
		t.Run(c.name, func(t *testing.T) {
			bundle, _ := e2e.Build(t, "--detached", "-r", c.recipe, ref)
			o := e2e.Run(t, bundle)
			if o.Code != 0 {
				t.Fatal(o)
			}
			r := e2e.ParseReport(t, o.Stdout)
			for _, want := range inside {
				if !slices.Contains(r.Writable, want) {
					t.Errorf("%s is not writable", want)
				}
			}
			for _, name := range outside {
				if slices.Contains(r.Writable, name) == c.readOnly {
					t.Errorf("read-only root %v, but the writable files are %q", c.readOnly, r.Writable)
				}
			}
			checkVolume(t, r)
		})
	}
}

// checkVolume looks for what the image has. What it lacks is made as mkdir(2)
// does, so with the group of a set-group-ID directory.
func checkVolume(t *testing.T, r e2e.Report) {
	t.Helper()
	for name, want := range map[string]string{
		"/data": "dgrwxr-x--- 7:8", "/data/file": "-rw-r----- 7:9", "/data/deep": "dgrwxr-xr-x 0:8", "/made": "drwxr-xr-x 0:0",
	} {
		if got := r.Files[name] + " " + r.Owners[name]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if r.Texts["/data/file"] != "from the image" || strings.Contains(r.Texts["/etc/hosts"], "evil") {
		t.Errorf("texts %q", r.Texts)
	}
	for _, want := range []string{"/data", "/data/deep", "/made"} {
		if !slices.ContainsFunc(r.Mounts, func(m string) bool { return strings.HasPrefix(m, want+" ") }) {
			t.Errorf("mounts %q lack %s", r.Mounts, want)
		}
	}
}

// TestE2EInitFails checks that PID 1's own failures are told, on the console
// and to the host.
func TestE2EInitFails(t *testing.T) {
	for _, c := range []struct {
		name, allow string // what the build would refuse
		configure   func(*v1.Config)
		code        int
		want        string
	}{
		{"unknown user", "user", func(c *v1.Config) { c.User = "ghost" }, 125, `user "ghost" is not in /etc/passwd`},
		{"unknown group", "user", func(c *v1.Config) { c.User = "0:ghosts" }, 125, `group "ghosts" is not in /etc/group`},
		{"volume that is a file", "volume", func(c *v1.Config) { c.Volumes = map[string]struct{}{"/kept": {}} }, 125, "making volume /kept: file exists"},
		{"working directory that is a file", "workdir", func(c *v1.Config) { c.WorkingDir = "/kept/x" }, 125, "making the working directory /kept/x"},
		{"program that is not there", "entrypoint", func(c *v1.Config) { c.Entrypoint = []string{"/absent"} }, 127, "starting /absent"},
		{"program that is none", "entrypoint", func(c *v1.Config) { c.Entrypoint = []string{"/plain"} }, 126, "starting /plain"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plain := e2e.File{Header: tar.Header{Name: "plain", Mode: 0o644}, Content: []byte("x")}
			bundle, _ := e2e.Build(t, "--detached", "--allow", c.allow, "-r", e2e.ProbeRecipe(), e2e.Image(t, c.configure, append(slices.Clone(e2e.ProbeFiles), plain)...))
			o := e2e.Run(t, bundle)
			if o.Code != c.code || !strings.Contains(o.Stdout, "appinit: error: "+c.want) || !strings.Contains(o.Stderr, c.want) {
				t.Errorf("want exit status %d and %q on both: %s", c.code, c.want, o)
			}
		})
	}
}

// TestE2EChildren checks that PID 1 is a parent to orphans.
func TestE2EChildren(t *testing.T) {
	for probe, want := range map[string]string{"zombies": "ZOMBIES 0\n", "left": "GOT terminated\n"} {
		t.Run(probe, func(t *testing.T) {
			if o := e2e.Run(t, e2e.Probe(t), "-e", "PROBE="+probe); o.Code != 0 || !strings.Contains(o.Stdout, want) {
				t.Errorf("want %q: %s", want, o)
			}
		})
	}
}

// TestE2EXattrs boots with tables of extended attributes of its own, in an
// archive behind the bundle's.
func TestE2EXattrs(t *testing.T) {
	ref, _ := e2e.Build(t, "--detached", "-r", e2e.ProbeRecipe(), "--name", "probe", e2e.Image(t, nil, e2e.ProbeFiles...))
	kernel, initramfs := e2e.LayerFile(t, ref, bundle.KernelType), e2e.LayerFile(t, ref, bundle.InitramfsType)
	bootWith := func(x ...manifest.Xattr) string {
		var table []byte
		for _, x := range x {
			table = manifest.AppendXattr(table, x)
		}
		return e2e.Boot(t, "-kernel", kernel, "-initrd", withXattrs(t, initramfs, table), "-append", e2e.Inspect(t, ref).CommandLine)
	}
	capability := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	r := e2e.ParseReport(t, bootWith(
		manifest.Xattr{Path: "kept", Name: "security.capability", Value: []byte(capability)},
		manifest.Xattr{Path: "kept", Name: "trusted.test", Value: []byte("a\x00b")},
	))
	want := map[string]string{"security.capability": "0100000200040000000000000000000000000000", "trusted.test": "610062"}
	for name, value := range want {
		for _, file := range []string{"/kept", "/linked"} { // one inode
			if r.Xattrs[file+" "+name] != value {
				t.Errorf("%s of %s: %q", name, file, r.Xattrs)
			}
		}
	}
	console := bootWith(manifest.Xattr{Path: "absent", Name: "trusted.test", Value: []byte("x")})
	if want := `appinit: error: setting extended attribute "trusted.test" of "/absent": no such file`; !strings.Contains(console, want) || strings.Contains(console, "REPORT") {
		t.Errorf("want %q:\n%s", want, console)
	}
}

// TestE2EIncomplete boots with archives of which the end is missing: the kernel goes on with
// what it could unpack, and PID 1 does not.
func TestE2EIncomplete(t *testing.T) {
	ref, _ := e2e.Build(t, "--detached", "-r", e2e.ProbeRecipe(), "--name", "probe", e2e.Image(t, nil, e2e.ProbeFiles...))
	kernel, initramfs := e2e.LayerFile(t, ref, bundle.KernelType), e2e.Must(os.ReadFile(e2e.LayerFile(t, ref, bundle.InitramfsType)))
	plain := exec.Command("zstd", "-dc")
	plain.Stdin = bytes.NewReader(initramfs)
	archive := e2e.Must(plain.Output())
	last := bytes.LastIndex(archive, []byte(strings.TrimPrefix(manifest.SpecPath, "/"))) - 110 // the header of newc
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"without its last file", archive[:last], "appinit: error: the root file system is incomplete: " + manifest.SpecPath},
		{"cut", initramfs[:len(initramfs)-1000], "Attempted to kill init! exitcode=0x00000200"}, // there is no console to say why
	} {
		initrd := e2e.WriteFile(t, filepath.Join(t.TempDir(), "initrd"), c.data)
		console := e2e.Boot(t, "-kernel", kernel, "-initrd", initrd, "-append", e2e.Inspect(t, ref).CommandLine)
		if !strings.Contains(console, c.want) || strings.Contains(console, "REPORT") {
			t.Errorf("%s: want %q:\n%s", c.name, c.want, console)
		}
	}
}

// withXattrs appends a table to an initramfs.
func withXattrs(t *testing.T, initramfs string, table []byte) string {
	t.Helper()
	dir := t.TempDir()
	name := strings.TrimPrefix(manifest.XattrsPath, "/")
	if err := os.Mkdir(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), table, 0o600); err != nil {
		t.Fatal(err)
	}
	cpio := exec.Command("cpio", "-o", "-H", "newc", "--quiet")
	cpio.Dir, cpio.Stdin = dir, strings.NewReader(name+"\n")
	archive, err := cpio.Output()
	if err != nil {
		t.Fatal(err)
	}
	data := e2e.Must(os.ReadFile(initramfs))
	data = append(data, bytes.Repeat([]byte{0}, -len(data)&3)...) // archives start at a multiple of 4
	out := filepath.Join(dir, "initrd")
	if err := os.WriteFile(out, append(data, archive...), 0o600); err != nil {
		t.Fatal(err)
	}
	return out
}
