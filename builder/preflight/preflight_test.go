// SPDX-License-Identifier: Apache-2.0

package preflight

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/rootfs"
)

// program is an ELF file as the kernel sees it: headers, and the name of a dynamic loader.
type program struct {
	class, data   byte
	kind, machine uint16
	loader        string
}

func (p program) bytes() string {
	var b bytes.Buffer
	order := binary.ByteOrder(binary.LittleEndian)
	if p.data == 2 {
		order = binary.BigEndian
	}
	ident := [16]byte{0x7f, 'E', 'L', 'F', p.class, p.data, 1}
	segments := uint16(1)
	if p.loader == "" {
		segments = 0
	}
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, order, v) // into memory: does not fail
		}
	}
	if p.class == 2 {
		put(ident, p.kind, p.machine, uint32(1), uint64(0), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), segments, uint16(64), uint16(0), uint16(0))
		put(uint32(3), uint32(4), uint64(64+56), uint64(0), uint64(0), uint64(len(p.loader)+1), uint64(0), uint64(1))
	} else {
		put(ident, p.kind, p.machine, uint32(1), uint32(0), uint32(52), uint32(0), uint32(0), uint16(52), uint16(32), segments, uint16(40), uint16(0), uint16(0))
		put(uint32(3), uint32(52+32), uint32(0), uint32(0), uint32(len(p.loader)+1), uint32(0), uint32(4), uint32(1))
	}
	return b.String() + p.loader + "\x00"
}

const glibc, musl = "/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-x86_64.so.1"

var (
	static  = program{2, 1, 2, 62, ""}.bytes()
	dynamic = program{2, 1, 3, 62, glibc}.bytes()
	small   = program{1, 1, 2, 3, ""}.bytes()
)

// debian is what many images have: merged /usr, a shell, env, the loader of glibc.
func debian() map[string]string {
	return map[string]string{
		"bin": "-> usr/bin", "lib64": "-> usr/lib64", "usr/bin/sh": "-> dash", "usr/bin/dash": "x " + dynamic, "usr/bin/env": "x " + dynamic,
		"usr/lib64/ld-linux-x86-64.so.2": "-> ../lib/x86_64-linux-gnu/ld.so", "usr/lib/x86_64-linux-gnu/ld.so": "x " + program{2, 1, 3, 62, ""}.bytes(),
		"etc/passwd": "f root:x:0:0::/root:/bin/sh\napp:x:100:101::/:\n", "etc/group": "f app:x:101:\n", "srv/data": "f data", "var/empty/x": "f x",
	}
}

// tree makes files of texts: "x " is a program, "f " is none, "-> " a symlink.
func tree(t *testing.T, files ...map[string]string) *rootfs.Tree {
	t.Helper()
	out := rootfs.New()
	for _, m := range files {
		for name, text := range m {
			kind, content, _ := strings.Cut(text, " ")
			n := rootfs.NewFile(strings.NewReader(content), int64(len(content)), 0o644)
			switch kind {
			case "x":
				n.Perm = 0o755
			case "->":
				n = &rootfs.Inode{Type: rootfs.Symlink, Perm: 0o777, Target: content}
			case "fifo":
				n = &rootfs.Inode{Type: rootfs.FIFO, Perm: 0o755}
			}
			if err := out.Put(name, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

func TestCheck(t *testing.T) {
	files := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	command := func(words ...string) manifest.App { return manifest.App{Entrypoint: words} }
	script := func(first string) map[string]string { return files("run", "x "+first+"\necho\n") }
	tests := []struct {
		name  string
		files map[string]string
		app   manifest.App
		want  string // name: part of the error; empty for nothing
	}{
		// What ordinary images have.
		{"static", files("app", "x "+static), command("/app"), ""},
		{"static with an interpreter table of its own", files("app", "x "+program{2, 1, 3, 62, ""}.bytes()), command("/app"), ""},
		{"dynamic", files("app", "x "+dynamic), command("/app"), ""},
		{"script", script("#!/bin/sh -e"), command("/run"), ""},
		{"script with a blank", script("#! /bin/sh"), command("/run"), ""},
		{"script with a tab", script("#!/bin/sh\t-e"), command("/run"), ""},
		{"script without an end of its line", files("run", "x #!/bin/sh"), command("/run"), ""},
		{"script of env", script("#!/usr/bin/env sh"), command("/run"), ""},
		{"script of env with options", script("#!/usr/bin/env -S A=1 sh -e"), command("/run"), ""},
		{"script of env with what only env reads", script("#!/usr/bin/env -i python"), command("/run"), ""},
		{"script of env with a PATH", script("#!/usr/bin/env -S PATH=/opt/bin:${PATH} tool"), command("/run"), ""},
		{"script of env with a PATH in quotes", script(`#!/usr/bin/env -S A=1 "PATH=/opt/bin" tool`), command("/run"), ""},
		{"script of env with another variable", script("#!/usr/bin/env -S MYPATH=/opt/bin tool"), command("/run"), `interpreter: the interpreter of the script "/run": "tool" is not in PATH`},
		{"script of a script", files("run", "x #!/two\n", "two", "x #!/bin/sh\n"), command("/run"), ""},
		{"in PATH", nil, command("sh", "-c", "true"), ""},
		{"in the image's PATH", files("opt/x/app", "x "+static), manifest.App{Cmd: []string{"app"}, Env: []string{"PATH=/usr/bin:/opt/x"}}, ""},
		{"in the working directory by way of PATH", files("srv/app", "x "+static), manifest.App{Cmd: []string{"app"}, Env: []string{"PATH=:/usr/bin"}, WorkingDir: "/srv"}, ""},
		{"relative", files("srv/bin/app", "x "+static), manifest.App{Cmd: []string{"bin/app"}, WorkingDir: "/srv"}, ""},
		{"through symlinks out of the root", files("app", "-> ../../usr/../opt/app", "opt/app", "x "+static), command("/app"), ""},
		{"script with a relative interpreter", files("srv/run", "x #!bin/sh\n", "srv/bin/sh", "x "+static), manifest.App{Cmd: []string{"./run"}, WorkingDir: "/srv"}, ""},
		{"what the system has when it runs", nil, command("/proc/self/exe"), ""},
		{"a link to it", files("app", "-> /dev/fd/3"), command("/app"), ""},
		{"no command", nil, manifest.App{}, ""},
		{"user and group", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, User: "app:app"}, ""},
		{"numbers that no file has", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, User: "4000:4000"}, ""},
		{"directories that are missing", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, WorkingDir: "new/dir", Volumes: []string{"/other"}}, ""},
		{"directories through links", files("app", "x "+static, "data", "-> /var/empty"), manifest.App{Cmd: []string{"/app"}, WorkingDir: "/data", Volumes: []string{"/data"}}, ""},
		{"a directory that a volume makes", files("app", "x "+static, "work", "-> /later"), manifest.App{Cmd: []string{"/app"}, WorkingDir: "/work"}, ""},

		// What never runs.
		{"missing", nil, command("/app"), `entrypoint: "/app": not in the image`},
		{"empty name", nil, command(""), "entrypoint: its name is empty"},
		{"missing from PATH", nil, command("app"), `entrypoint: "app" is not in PATH=/usr/local/sbin:`},
		{"link to nothing", files("app", "-> /opt/app"), command("/app"), `entrypoint: "/app": it leads to "/opt/app", which is not in the image`},
		{"circle", files("app", "-> app"), command("/app"), `entrypoint: "/app": too many levels`},
		{"below a file", nil, command("/srv/data/app"), `entrypoint: "/srv/data/app": "/srv/data" is not a directory`},
		{"directory", nil, command("/srv"), `entrypoint: "/srv" is a directory`},
		{"directory in PATH", files("usr/bin/app/x", "f x"), command("app"), `entrypoint: "app" is not in PATH`},
		{"FIFO", files("app", "fifo"), command("/app"), `entrypoint: "/app" is not a regular file`},
		{"not executable", files("app", "f "+static), command("/app"), `entrypoint: "/app" is not executable: its mode is 0644`},
		{"not executable in PATH", files("usr/bin/app", "f "+static), command("app"), `entrypoint: "/usr/bin/app" is not executable`},
		{"empty", files("app", "x "), command("/app"), `format: "/app" is empty`},
		{"text", files("app", "x echo hello\n"), command("/app"), `format: "/app" is neither an ELF program nor a script`},
		{"script after a byte order mark", files("app", "x \xef\xbb\xbf#!/bin/sh\n"), command("/app"), `format: "/app" is neither`},
		{"script without an interpreter", script("#!"), command("/run"), `format: the first line of "/run" names no interpreter`},
		{"script that was written on Windows", script("#!/bin/sh\r"), command("/run"), `interpreter: the first line of "/run" ends in CR LF, as on Windows: the kernel looks for "/bin/sh\r"`},
		{"script of env that was written on Windows", script("#!/usr/bin/env sh\r"), command("/run"), `interpreter: the first line of "/run" ends in CR LF, as on Windows: env looks for "sh\r"`},
		{"script with an option that was written on Windows", script("#!/bin/sh -e\r"), command("/run"), `warning interpreter: the first line of "/run" ends in CR LF, as on Windows: /bin/sh gets "-e\r"`},
		{"script whose interpreter is missing", script("#!/bin/bash"), command("/run"), `interpreter: the interpreter of the script "/run": "/bin/bash": it leads to "/usr/bin/bash", which is not in the image`},
		{"script of env whose interpreter is missing", script("#!/usr/bin/env python3"), command("/run"), `interpreter: the interpreter of the script "/run": "python3" is not in PATH`},
		{"script whose interpreter does not run", files("run", "x #!/sh\n", "sh", "x "+program{2, 1, 2, 183, ""}.bytes()), command("/run"), `cpu: the interpreter of the script "/run": "/sh" is a program for another CPU: AARCH64`},
		{"scripts in a circle", files("run", "x #!/run\n"), command("/run"), "more than 5 scripts run each other"},
		{"for arm64", files("app", "x "+program{2, 1, 3, 183, "/lib/ld-linux-aarch64.so.1"}.bytes()), command("/app"), `cpu: "/app" is a program for another CPU: AARCH64`},
		{"for s390x", files("app", "x "+program{2, 2, 2, 22, ""}.bytes()), command("/app"), `cpu: "/app" is a program for another CPU: S390`},
		{"for i386", files("app", "x "+small), command("/app"), `ia32: "/app" is a 32-bit program`},
		{"for x32", files("app", "x "+program{1, 1, 2, 62, ""}.bytes()), command("/app"), `ia32: "/app" is a program for x32`},
		{"object file", files("app", "x "+program{2, 1, 1, 62, ""}.bytes()), command("/app"), `format: "/app" is an ELF file of type REL`},
		{"ELF cut off", files("app", "x "+static[:40]), command("/app"), `format: "/app": an ELF file that is cut off`},
		{"ELF cut off in its segments", files("app", "x "+dynamic[:80]), command("/app"), `format: "/app": an ELF file that is cut off`},
		{"loader's name without an end", files("app", "x "+dynamic[:len(dynamic)-1]+"x"), command("/app"), `format: "/app": an ELF file with a damaged name`},
		{"for musl, in an image without it", files("app", "x "+program{2, 1, 3, 62, musl}.bytes()), command("/app"), `loader: the dynamic loader of "/app": it was made for musl, the C library of Alpine Linux: "/lib/ld-musl-x86_64.so.1": not in the image`},
		{"for NixOS", files("app", "x "+program{2, 1, 3, 62, "/nix/store/x/ld.so"}.bytes()), command("/app"), `loader: the dynamic loader of "/app": "/nix/store/x/ld.so": not in the image`},
		{"user that is not there", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, User: "ghost"}, `user: user "ghost" is not in /etc/passwd`},
		{"group that is not there", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, User: "app:ghosts"}, `user: group "ghosts" is not in /etc/group`},
		{"number out of range", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, User: "4294967295"}, "user: user: id 4294967295 is out of range"},
		{"working directory on a file", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, WorkingDir: "/srv/data"}, `workdir: "/srv/data" is not a directory in the image`},
		{"working directory below a file", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, WorkingDir: "/srv/data/x"}, `workdir: "/srv/data/x": "/srv/data" is not a directory`},
		{"volume on a file", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, Volumes: []string{"/var/empty", "/srv/data"}}, `volume: "/srv/data" is not a directory`},
		{"missing, in a volume", nil, manifest.App{Cmd: []string{"/data/bin/app"}, Volumes: []string{"/data"}}, `warning entrypoint: "/data/bin/app": not in the image, unless a volume brings it`},
		{"missing, in a volume through a link", files("data", "-> /var/empty", "app", "-> /data/app"), manifest.App{Cmd: []string{"/app"}, Volumes: []string{"/var/empty"}}, `warning entrypoint: "/app": it leads to "/var/empty/app"`},
		{"missing, beside a volume", nil, manifest.App{Cmd: []string{"/data2/app"}, Volumes: []string{"/data"}}, `entrypoint: "/data2/app": not in the image`},
		{"missing from a PATH with a volume", nil, manifest.App{Cmd: []string{"app"}, Env: []string{"PATH=/usr/bin:/data/bin"}, Volumes: []string{"/data"}}, `warning entrypoint: "app" is not in PATH=/usr/bin:/data/bin, unless a volume brings it`},
		{"not executable, in a volume", files("data/app", "f "+static), manifest.App{Cmd: []string{"/data/app"}, Volumes: []string{"/data"}}, `warning entrypoint: "/data/app" is not executable: its mode is 0644, unless`},
		{"text, in a volume", files("data/app", "x hello\n"), manifest.App{Cmd: []string{"/data/app"}, Volumes: []string{"/data"}}, `warning format: "/data/app" is neither`},
		{"script whose interpreter is in a volume", script("#!/data/python"), manifest.App{Cmd: []string{"/run"}, Volumes: []string{"/data"}}, `warning interpreter: the interpreter of the script "/run": "/data/python": not in the image, unless`},
		{"health check that is missing", files("app", "x "+static), manifest.App{Cmd: []string{"/app"}, Health: &manifest.Health{Exec: []string{"curl"}}}, `warning health: "curl" is not in PATH`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, p := range Check(Request{Tree: tree(t, debian(), test.files), App: test.app}) {
				line := p.Name + ": " + p.Err.Error()
				if p.Warning {
					line = "warning " + line
				}
				if !slices.Contains(Names, p.Name) {
					t.Errorf("%q is no name", p.Name)
				}
				got = append(got, line)
			}
			switch {
			case test.want == "" && len(got) > 0, test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want) || strings.HasPrefix(got[0], "warning") != strings.HasPrefix(test.want, "warning")):
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestCheckWithWhatTheKernelHas(t *testing.T) {
	r := Request{Tree: tree(t, debian(), map[string]string{"app": "x " + small, "x32": "x " + program{1, 1, 2, 62, ""}.bytes()}), App: manifest.App{Cmd: []string{"/app"}}, IA32: true}
	if got := Check(r); len(got) != 0 {
		t.Errorf("IA32: %v", got)
	}
	r.App.Cmd = []string{"/x32"}
	if got := Check(r); len(got) != 1 {
		t.Errorf("x32 without X32: %v", got)
	}
	r.X32 = true
	if got := Check(r); len(got) != 0 {
		t.Errorf("x32: %v", got)
	}
	// A deployer decides where programs are.
	r.App.Cmd, r.Parameters = []string{"elsewhere"}, []manifest.Parameter{{Name: "PATH"}}
	if got := Check(r); len(got) != 0 {
		t.Errorf("PATH as a parameter: %v", got)
	}
}

func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Concat(Names, inits) {
		if !strings.Contains(string(doc), name) {
			t.Errorf("docs/recipes.md says nothing of %s", name)
		}
	}
}

func TestIsStatic(t *testing.T) {
	r := Request{Tree: tree(t, debian(), map[string]string{
		"static": "x " + static, "dynamic": "x " + dynamic, "script": "x #!/bin/sh\n", "empty": "x ", "cut": "x " + static[:40], "loop": "-> loop", "srv/run": "x " + static,
	}), App: manifest.App{WorkingDir: "/srv"}}
	for name, want := range map[string]bool{
		"/static": true, "./run": true, "/dynamic": false, "/script": false, "/empty": false, "/cut": false, "/loop": false, "/missing": false, "/usr": false, "": false, "sh": false,
	} {
		if got := r.IsStatic([]string{name}); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	if r.IsStatic(nil) {
		t.Error("no command is static")
	}
}

func TestNeedsPID1(t *testing.T) {
	r := Request{Tree: tree(t, debian(), map[string]string{
		"init": "x #!/bin/sh\n", "sbin/init": "-> ../lib/systemd/systemd", "lib/systemd/systemd": "x " + dynamic, "usr/bin/tini": "x " + static, "app": "x " + static,
	})}
	for name, want := range map[string]bool{"/init": true, "/sbin/init": true, "init": true, "/lib/systemd/systemd": true, "tini": false, "/app": false, "/missing/init": false, "": false} {
		r.App.Entrypoint = []string{name}
		if got := r.NeedsPID1(); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}

// A program that a stranger made must not make us panic, or take memory.
func FuzzProgram(f *testing.F) {
	for _, p := range []string{static, dynamic, small, "#!/bin/sh\n", "#!/usr/bin/env -S a=b sh\r\n", "#! \t\n"} {
		f.Add([]byte(p))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		out := rootfs.New()
		if err := out.Put("app", rootfs.NewFile(bytes.NewReader(data), int64(len(data)), 0o755)); err != nil {
			t.Fatal(err)
		}
		Check(Request{Tree: out, App: manifest.App{Cmd: []string{"/app"}}})
	})
}
