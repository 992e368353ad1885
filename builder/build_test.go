// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/image"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/builder/preflight"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/recipes"
)

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestNameOf(t *testing.T) {
	for name, want := range map[string]string{
		"index.docker.io/library/redis:7.2":           "redis",
		"registry.example:5000/team/app":              "app",
		"registry.example/team/app@sha256:0123456789": "app",
		"registry.example/team/My_App:v1":             "my-app",
		"registry.example/team/app.server:1.0":        "app",
		"/images/redis-image":                         "redis-image",
		"/images/redis.tar":                           "redis",
		"/rootfs":                                     "rootfs",
		"/":                                           "app",
		"/--":                                         "app",
		"/ÜÄ":                                         "app",
		"/" + strings.Repeat("a", 100):                strings.Repeat("a", 63),
		// A DNS label does not end in a hyphen.
		"/" + strings.Repeat("a", 62) + "-b": strings.Repeat("a", 62),
	} {
		got := nameOf(name)
		if got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		spec := []byte(`{"version":2,"name":"` + got + `","app":{"cmd":["x"]},"network":false}`)
		if _, err := manifest.DecodeSpec(spec); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFillApp(t *testing.T) {
	from := manifest.App{Entrypoint: []string{"/r"}, Cmd: []string{"-r"}, Env: []string{"A=recipe", "B=recipe"}, User: "r", WorkingDir: "/r", StopSignal: "SIGINT", ReadOnly: true}
	tests := []struct {
		name      string
		app, want manifest.App
	}{
		{"empty image", manifest.App{}, from},
		{"image with everything", manifest.App{Entrypoint: []string{"/i"}, Cmd: []string{"-i"}, Env: []string{"A=image", "B=", "C=image"}, User: "i", WorkingDir: "/i", StopSignal: "SIGTERM"},
			manifest.App{Entrypoint: []string{"/i"}, Cmd: []string{"-i"}, Env: []string{"A=image", "B=", "C=image"}, User: "i", WorkingDir: "/i", StopSignal: "SIGTERM", ReadOnly: true}},
		{"image with a cmd alone", manifest.App{Cmd: []string{"/i"}, Env: []string{"AB=image"}},
			manifest.App{Cmd: []string{"/i"}, Env: []string{"AB=image", "A=recipe", "B=recipe"}, User: "r", WorkingDir: "/r", StopSignal: "SIGINT", ReadOnly: true}},
	}
	for _, test := range tests {
		fillApp(&test.app, from)
		if !reflect.DeepEqual(test.app, test.want) {
			t.Errorf("%s: got %+v", test.name, test.app)
		}
	}
}

func TestBootMemory(t *testing.T) {
	const MiB = 1 << 20
	var before int64
	for _, files := range []int64{0, 1, MiB, 10 * MiB, 187 * MiB, 4 << 30, 64 << 30} {
		got := bootMemory(files, files/3)
		// All of it fits: the files in the share of the root file system, the
		// archive beside them, the kernel.
		if got%MiB != 0 || got < before || got < kernelMemory+files+files/3 || got*rootfsShare/100 < files {
			t.Errorf("%d bytes of files boot in %d", files, got)
		}
		if got > 2*(files+files/3)+64*MiB {
			t.Errorf("%d bytes of files need %d", files, got)
		}
		before = got
	}
}

// elfFile is a 64-bit little-endian ELF file with program headers of the given
// types and nothing else.
func elfFile(t *testing.T, segments ...uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	ident := [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}
	for _, v := range []any{
		ident, uint16(2), uint16(62), uint32(1), uint64(0), uint64(64), uint64(0), uint32(0), // type, machine, version, entry, phoff, shoff, flags
		uint16(64), uint16(56), uint16(len(segments)), uint16(64), uint16(0), uint16(0), // ehsize, phentsize, phnum, shentsize, shnum, shstrndx
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range segments {
		if err := binary.Write(&b, binary.LittleEndian, [14]uint32{s}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func put(t *testing.T, tree *rootfs.Tree, name string, data []byte, perm uint32) {
	t.Helper()
	if err := tree.Put(name, rootfs.NewFile(bytes.NewReader(data), int64(len(data)), perm)); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, tree *rootfs.Tree, name, target string) {
	t.Helper()
	if err := tree.Put(name, &rootfs.Inode{Type: rootfs.Symlink, Perm: 0o777, Target: target}); err != nil {
		t.Fatal(err)
	}
}

func TestVolumes(t *testing.T) {
	got := imageVolumes(map[string]struct{}{"/var/b/c": {}, "/var/b/": {}, "/var/b": {}, "/a/../data": {}, "": {}})
	if want := []string{"/data", "/var/b", "/var/b/c"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := imageVolumes(nil); got != nil {
		t.Errorf("none: got %q", got)
	}
}

func TestImageHealth(t *testing.T) {
	tests := []struct {
		in   *v1.HealthConfig
		want *manifest.Health
	}{
		{nil, nil},
		{&v1.HealthConfig{}, nil},
		{&v1.HealthConfig{Test: []string{"NONE"}}, nil},
		{&v1.HealthConfig{Test: []string{"CMD"}}, nil},
		{&v1.HealthConfig{Test: []string{"ODD", "x"}}, nil},
		{&v1.HealthConfig{Test: []string{"CMD", "redis-cli", "ping"}}, &manifest.Health{Exec: []string{"redis-cli", "ping"}, Interval: 30 * time.Second, Timeout: 30 * time.Second, Retries: 3}},
		{&v1.HealthConfig{Test: []string{"CMD-SHELL", "a | b"}, Interval: time.Second, Timeout: time.Minute, Retries: 1}, &manifest.Health{Exec: []string{"/bin/sh", "-c", "a | b"}, Interval: time.Second, Timeout: time.Minute, Retries: 1}},
	}
	for _, test := range tests {
		if got := imageHealth(test.in); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%+v: got %+v", test.in, got)
		}
	}
}

func TestEnvironmentSetTwice(t *testing.T) {
	got := imageApp(&v1.Config{Env: []string{"A=1", "B=1", "A=2", "AB=1", "B=", "A=3"}}).Env
	if want := []string{"AB=1", "B=", "A=3"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// startOf is what Build makes of a tree and a recipe, before it packs anything.
func startOf(t *testing.T, tree *rootfs.Tree, config v1.Config, recipe string, req Request) (*plan, error) {
	t.Helper()
	r, err := recipes.Parse("mine.toml", []byte("description = \"x\"\n"+recipe+"\n[claims]\ncpus = { min = 1, max = 1 }\nmemory = { min = \"1MiB\", max = \"1MiB\" }\n"))
	if err != nil {
		t.Fatal(err)
	}
	req.Recipe = r
	if req.Log == nil {
		req.Log = slog.New(slog.DiscardHandler)
	}
	p, err := newPlan(&req, "/x", &config, tree)
	if err != nil {
		t.Fatal(err)
	}
	return p, newContent(tree).fill(&req, p)
}

func TestCheckStart(t *testing.T) {
	small := elfFile(t, 1)
	small[4], small[18] = 1, 3 // ELFCLASS32, EM_386
	tests := []struct {
		name   string
		config v1.Config
		recipe string
		req    Request
		want   string
	}{
		{"an app that starts", v1.Config{Cmd: []string{"/app"}}, "", Request{}, ""},
		{"one that does not", v1.Config{Cmd: []string{"/app.sh"}, User: "ghost"}, "", Request{}, "its app cannot start: interpreter: "},
		{"allowed", v1.Config{Cmd: []string{"/app.sh"}}, "", Request{Allow: []string{"interpreter"}}, ""},
		{"something else is allowed", v1.Config{Cmd: []string{"/app.sh"}}, "", Request{Allow: []string{"loader"}}, "its app cannot start: interpreter: "},
		{"what is allowed for nothing", v1.Config{Cmd: []string{"/app"}}, "", Request{Allow: []string{"loader"}}, "--allow loader: nothing in the image needs it"},
		{"32-bit", v1.Config{Cmd: []string{"/small"}}, "", Request{}, "its app cannot start: ia32: "},
		{"32-bit and a kernel for it", v1.Config{Cmd: []string{"/small"}}, `config = ["IA32_EMULATION=y"]`, Request{}, ""},
		{"a recipe that drops the app", v1.Config{Cmd: []string{"/app"}}, `drop = ["app"]`, Request{}, `entrypoint: "/app": not in the image`},
		{"a pattern that drops nothing", v1.Config{Cmd: []string{"/app"}}, `drop = ["ap", "usr/shar/**"]`, Request{}, `recipe "mine": drop: "ap" matches no file of the image`},
		{"a pattern of what some images have", v1.Config{Cmd: []string{"/app"}}, `drop_if_present = ["usr/shar/**"]`, Request{}, ""},
		{"two patterns for one file", v1.Config{Cmd: []string{"/app"}}, `drop = ["doc/**", "doc/a/b"]`, Request{}, ""},
		{"a waiver for nothing", v1.Config{Cmd: []string{"/app"}}, "", Request{AllowDrop: []string{"**", "ap"}}, `--allow-drop "ap" matches no file of the image`},
		{"a waiver of what a recipe drops", v1.Config{Cmd: []string{"/app"}}, `drop = ["doc/**"]`, Request{AllowDrop: []string{"doc/a/b"}}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tree := rootfs.New()
			put(t, tree, "app", elfFile(t, 1), 0o755)
			put(t, tree, "small", append(small[:52:52], 0), 0o755)
			put(t, tree, "app.sh", []byte("#!/bin/none\n"), 0o755)
			put(t, tree, "doc/a/b", nil, 0o644)
			_, err := startOf(t, tree, test.config, test.recipe, test.req)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestPIDNamespace(t *testing.T) {
	for _, test := range []struct {
		program, recipe string
		want            bool
	}{{"/app", "", false}, {"/init", "", true}, {"/init", "[app]\npid_namespace = false", false}, {"/app", "[app]\npid_namespace = true", true}} {
		tree := rootfs.New()
		put(t, tree, test.program, elfFile(t, 1), 0o755)
		p, err := startOf(t, tree, v1.Config{Entrypoint: []string{test.program}}, test.recipe, Request{})
		if err != nil || p.app.PIDNamespace != test.want {
			t.Errorf("%s %q: %v, %v", test.program, test.recipe, p.app.PIDNamespace, err)
		}
	}
}

func newContent(tree *rootfs.Tree) *content { return &content{tree: tree, fidelity: fidelity.New()} }

func TestPlan(t *testing.T) {
	tree := rootfs.New()
	put(t, tree, "usr/share/doc/a", []byte("12345"), 0o644)
	put(t, tree, "app", elfFile(t, 1), 0o755)
	quiet := slog.New(slog.DiscardHandler)
	c := newContent(tree)
	p, err := newPlan(&Request{Target: manifest.Kexec, Log: quiet}, "/images/redis.tar", &v1.Config{Cmd: []string{"redis-server"}}, tree)
	if err == nil {
		err = c.drop(p.recipe)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.name != "redis" || p.recipe.Name != "redis" || p.form != (Form{manifest.Kexec, true, true}) || p.app.Health.TCP != 6379 {
		t.Errorf("got %+v", p)
	}
	if !reflect.DeepEqual(c.fidelity.Dropped, []fidelity.Dropped{{By: "recipe redis", Entries: 1, Bytes: 5}}) {
		t.Errorf("dropped %+v", c.fidelity.Dropped)
	}
	p, err = newPlan(&Request{Name: "mine", Detached: true, Log: quiet}, "/app", &v1.Config{Entrypoint: []string{"/app"}}, tree)
	if err != nil || p.name != "mine" || p.recipe.Name != "static" || p.form != (Form{manifest.QEMU, false, true}) {
		t.Errorf("%+v, %v", p, err)
	}
	put(t, tree, "script", []byte("#!/app\n"), 0o755)
	if _, err := newPlan(&Request{Log: quiet}, "/x", &v1.Config{Cmd: []string{"/script"}}, tree); !errors.Is(err, recipes.ErrUnknown) {
		t.Errorf("got %v", err)
	}
	// What no recipe can mend is said first.
	if _, err := newPlan(&Request{Log: quiet}, "/x", &v1.Config{Cmd: []string{"unknown"}}, tree); !errors.Is(err, preflight.ErrCannotStart) {
		t.Errorf("got %v", err)
	}
	r, err := recipes.Open("static")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newPlan(&Request{Image: "oci:x", Recipe: r, Log: quiet}, "/x", &v1.Config{}, tree); err == nil || err.Error() != `image "oci:x": it has neither an entrypoint nor a command, and neither does recipe "static"` {
		t.Errorf("got %v", err)
	}
}

// An image must not decide where PID 1 and its spec lie.
func TestImageWithOurFiles(t *testing.T) {
	for name, make := range map[string]func(*rootfs.Tree){
		"folder":           func(tree *rootfs.Tree) { put(t, tree, ".tenon/x", nil, 0o644) },
		"file":             func(tree *rootfs.Tree) { put(t, tree, ".tenon", nil, 0o644) },
		"symlink":          func(tree *rootfs.Tree) { link(t, tree, ".tenon", "etc"); put(t, tree, "etc/x", nil, 0o644) },
		"dangling symlink": func(tree *rootfs.Tree) { link(t, tree, ".tenon", "nowhere") },
	} {
		tree := rootfs.New()
		make(tree)
		if err := newContent(tree).drop(&recipes.Recipe{}); err == nil || !strings.Contains(err.Error(), "/.tenon") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	tree := rootfs.New()
	put(t, tree, "home/.tenon", nil, 0o644)
	if err := newContent(tree).drop(&recipes.Recipe{}); err != nil {
		t.Error(err)
	}
}

// PID 1 has to be able to mount, and to say so when it cannot.
func TestPutConsole(t *testing.T) {
	for name, test := range map[string]struct {
		make  func(*rootfs.Tree)
		want  string // of the error
		notes int
	}{
		"nothing":                  {func(*rootfs.Tree) {}, "", 0},
		"as docker export has it":  {func(tree *rootfs.Tree) { put(t, tree, "dev/console", nil, 0o644) }, "", 1},
		"through a symlink":        {func(tree *rootfs.Tree) { link(t, tree, "dev", "d"); put(t, tree, "d/x", nil, 0o644) }, "", 0},
		"console that is a folder": {func(tree *rootfs.Tree) { put(t, tree, "dev/console/x", nil, 0o644) }, "", 1},
		"proc is a file":           {func(tree *rootfs.Tree) { put(t, tree, "proc", nil, 0o644) }, "/proc is not a directory", 0},
		"sys is a loop":            {func(tree *rootfs.Tree) { link(t, tree, "sys", "sys") }, "/sys is not a directory", 0},
	} {
		tree := rootfs.New()
		test.make(tree)
		c := newContent(tree)
		err := c.putConsole()
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		n, err2 := tree.Lookup("/dev/console")
		if err := errors.Join(err, err2); err != nil || n.Type != rootfs.CharDevice || n.Major != 5 || n.Minor != 1 || len(c.fidelity.Changed) != test.notes {
			t.Errorf("%s: %v, %+v, %+v", name, err, n, c.fidelity.Changed)
		}
	}
}

// Images of systemd declare what the kernel mounts.
func TestKeepVolumes(t *testing.T) {
	c := newContent(rootfs.New())
	kept := c.keepVolumes([]string{"/data", "/dev/shm", "/sys/fs/cgroup"})
	if !slices.Equal(kept, []string{"/data"}) || lines(c.fidelity) != "dev/shm no volume; sys/fs/cgroup no volume" {
		t.Errorf("%q, %q", kept, lines(c.fidelity))
	}
}

func TestPack(t *testing.T) {
	image := func() *rootfs.Tree {
		tree := rootfs.New()
		put(t, tree, "app", bytes.Repeat([]byte("x"), 5000), 0o755)
		return tree
	}
	silent := func(Stage, int64, int64) {}
	var digests []string
	for range 2 {
		c := newContent(image())
		p, err := c.pack(t.Context(), initFiles{[]byte("PID 1"), []byte("{}")}, t.TempDir(), silent)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{".tenon/init", ".tenon/spec.json", "dev/console"}; !slices.Equal(c.fidelity.Added, want) || c.fidelity.Entries != 7 || p.description.Entries != 7 {
			t.Errorf("added %v, %d entries", c.fidelity.Added, c.fidelity.Entries)
		}
		if p.memory != bootMemory(p.description.Unpacked, p.description.Size) {
			t.Errorf("got %+v", p)
		}
		if n, err := c.tree.Lookup(manifest.SpecPath); err != nil || n.Perm != 0o600 {
			t.Errorf("%+v, %v", n, err)
		}
		digests = append(digests, p.description.Digest)
		f, err := os.Open(p.path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if s, err := seal.Of(f, p.description.Size); err != nil || s != p.seal {
			t.Errorf("%v, %v, want %v", s, err, p.seal)
		}
		z, err := zstd.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		var last string
		if err := initramfs.List(z, func(e initramfs.Entry) error { last = e.Name; return nil }); err != nil || last != ".tenon/spec.json" {
			t.Errorf("the last file is %q, %v: PID 1 does not know that all is there", last, err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("two archives: %v", digests)
	}
	if _, err := newContent(image()).pack(canceled(t), initFiles{}, t.TempDir(), silent); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestInitFiles(t *testing.T) {
	appinit := filepath.Join(t.TempDir(), "appinit")
	if err := os.WriteFile(appinit, []byte("PID 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &plan{name: "web", app: manifest.App{Cmd: []string{"/app"}}, recipe: &recipes.Recipe{}}
	if f, err := p.initFiles(&Request{Appinit: appinit}); err != nil || string(f.program) != "PID 1" || !strings.Contains(string(f.spec), `"name":"web"`) {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := p.initFiles(&Request{Appinit: appinit + "-missing"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	p.app.Env = []string{"NOVALUE"}
	if _, err := p.initFiles(&Request{Image: "oci:x", Appinit: appinit}); err == nil || !strings.HasPrefix(err.Error(), `image "oci:x": app.env: `) {
		t.Errorf("got %v", err)
	}
}

// The manifest has what the steps returned, and claims the memory that the initramfs needs.
func TestDescribe(t *testing.T) {
	r := &recipes.Recipe{Name: "r", Claims: manifest.Claims{Memory: manifest.Range{Min: 1 << 20, Max: 2 << 20}}}
	p := &plan{name: "web", recipe: r, form: Form{Target: manifest.QEMU, Sealed: true}, app: manifest.App{Cmd: []string{"/app"}}}
	img := &image.Image{Image: empty.Image, Reference: "oci:x"}
	k := &compiled{description: manifest.Kernel{Release: "6.1"}, commandLine: "quiet"}
	initramfs := &packed{description: manifest.Initramfs{Entries: 7}, memory: 64 << 20}
	m, err := describe(&Request{Version: "1.2.3"}, img, p, initramfs, k, &kernel.Toolchain{Compiler: "gcc"})
	if err != nil {
		t.Fatal(err)
	}
	if mem := m.Claims.Memory; mem.Min != 65<<20 || mem.Max != mem.Min || r.Claims.Memory.Min != 1<<20 {
		t.Errorf("claims %+v, the recipe's %+v", mem, r.Claims.Memory)
	}
	if m.Name != "web" || m.BundleVersion != "1.2.3" || !m.Initramfs.Sealed || m.Initramfs.Entries != 7 || m.Kernel.Release != "6.1" || m.CommandLine != "quiet" || m.Recipe != "r" || m.Toolchain.Compiler != "gcc" || m.Image.Reference != "oci:x" {
		t.Errorf("got %+v", m)
	}
}

func TestTailor(t *testing.T) {
	r, err := recipes.Parse("my.toml", []byte("description = \"test\"\nfragments = [\"net\", \"serial\"]\nconfig = [\"IPV6=y\"]\n"+
		"claims = { cpus = { min = 1, max = 1 }, memory = { min = \"1MiB\", max = \"1MiB\" }, net = { min = 1, max = 1 } }\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range manifest.Targets {
		for _, sealed := range []bool{true, false} {
			f := Form{target, sealed, true}
			parts, err := Tailor(r, f)
			if err != nil {
				t.Error(err)
				continue
			}
			var names []string
			for _, p := range parts {
				names = append(names, p.Name)
			}
			form := map[bool]string{true: "sealed", false: "detached"}[sealed]
			for _, want := range []string{form, "target-" + string(target), "target-" + string(target) + "-net"} {
				if !slices.Contains(names, "kconfig/fragments/"+want+".config") {
					t.Errorf("%s, %s: no %s in %v", target, form, want, names)
				}
			}
			if names[len(names)-1] != "my.toml" || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
				t.Errorf("the recipe is not the last, or something is there twice: %v", names)
			}
			want := "quiet rdinit=/.tenon/init initramfs_options=size=90%" + map[manifest.Target]string{
				"qemu": " console=ttyS0", "kexec": " console=ttyS0",
				"cokernel": " console=hvc0 tenon.cokernel pci=off nopv no_ipi_broadcast=1 apic_extnmi=none mce=ignore_ce tsc=reliable",
			}[target]
			if got := f.commandLine(); got != want {
				t.Errorf("%s: got %s, want %s", target, got, want)
			}
		}
	}
	if _, err := Tailor(&recipes.Recipe{Name: "my", Fragments: []string{"nosuch"}}, Form{Target: "qemu"}); err == nil || !strings.HasPrefix(err.Error(), `recipe "my": no fragment "nosuch"`) {
		t.Errorf("got %v", err)
	}
}

func TestCheckSize(t *testing.T) {
	for target, most := range map[manifest.Target]int64{manifest.QEMU: 1920 << 20, manifest.Kexec: 1<<31 - 1, manifest.Cokernel: 1<<31 - 1} {
		f := Form{Target: target}
		if err := f.checkSize(most); err != nil {
			t.Errorf("%s: %v", target, err)
		}
		want := fmt.Sprintf("its compressed initramfs has %d bytes, and the target %s takes %d at most", most+1, target, most)
		if err := f.checkSize(most + 1); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", target, err, want)
		}
	}
}

func TestWithDrivers(t *testing.T) {
	if _, err := withDrivers(t.Context(), nil, &kernel.Source{Digest: "sha256:x"}, kernel.Driver{}); err == nil || !strings.HasPrefix(err.Error(), "the request lacks the driver") {
		t.Errorf("got %v", err)
	}
}
