// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/kconfig"
	"github.com/tenon-build/tenon/kconfig/fragments"
)

func TestBuiltin(t *testing.T) {
	if names := Names(); !slices.Equal(names, []string{"nginx", "redis", "static"}) {
		t.Errorf("names are %v", names)
	}
	for _, name := range Names() {
		r, err := Open(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if r.Name != name || len(r.Source) == 0 || r.Config.Name != "recipes/"+name+".toml" {
			t.Errorf("%s: name %q, config %q", name, r.Name, r.Config.Name)
		}
		if err := r.Claims.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, f := range r.Fragments {
			if _, err := fragments.Open(f); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// good is a recipe with everything in it.
const good = `# a comment
description = "test"
target = "kexec"
fragments = ["net"]
config = [
  "INET=y", # NET=y must not be taken for a part of this
  "NET=y",

  'CMDLINE="a=\"b\""', "HZ=100",
  "IPV6=n",
]
drop = ["usr/share/doc/**", "*.pyc"]

[match]
commands = ["test"]

[app]
entrypoint = ["/test"]
cmd = ["-x"]
env = ["A=1"]
user = "1000:1000"
working_dir = "/srv"
stop_signal = "SIGQUIT"
read_only = true

[claims]
cpus = { min = 1, max = 4 }
memory = { min = "64MiB", max = "1g" }
net = { min = 1, max = 2 }

[health]
tcp = 80
interval = "5s"
timeout = "1m"

[[parameters]]
name = "TZ"
type = "string"
default = "UTC"
description = "time zone"
`

func TestParse(t *testing.T) {
	r, err := Parse("dir/my.toml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "my" || r.Target != "kexec" || r.App.User != "1000:1000" || r.App.StopSignal != "SIGQUIT" || r.App.WorkingDir != "/srv" || !r.App.ReadOnly {
		t.Errorf("got %+v", r)
	}
	if m := r.Claims.Memory; m.Min != 64<<20 || m.Max != 1<<30 {
		t.Errorf("memory is %+v", m)
	}
	if h := r.Health; h.TCP != 80 || h.Interval != 5*time.Second || h.Timeout != time.Minute || h.Retries != 1 {
		t.Errorf("health is %+v", h)
	}
	if d := r.Claims.Device("net"); d == nil || d.Count.Max != 2 {
		t.Errorf("devices are %+v", r.Claims.Devices)
	}
	if p := r.Parameters; len(p) != 1 || *p[0].Default != "UTC" {
		t.Errorf("parameters are %+v", p)
	}
	var got []string
	for _, s := range r.Config.Settings {
		got = append(got, s.Pos.String()+" "+s.String())
	}
	want := []string{
		"dir/my.toml:6 INET=y", "dir/my.toml:7 NET=y", `dir/my.toml:9 CMDLINE="a=\"b\""`, "dir/my.toml:9 HZ=100", "dir/my.toml:10 IPV6=n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestConflictNamesBothPositions(t *testing.T) {
	r, err := Parse("my.toml", []byte(strings.Replace(good, `"HZ=100"`, `"INET=n"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	_, err = kconfig.Merge(r.Config)
	if err == nil || err.Error() != "INET: my.toml:6 wants y, my.toml:9 wants n" {
		t.Errorf("within the recipe: %v", err)
	}
	net, err := kconfig.ParseFragment("net.config", []byte("\nCONFIG_IPV6=y\n"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = kconfig.Merge(net, r.Config)
	if err == nil || !strings.HasPrefix(err.Error(), "INET: ") || !strings.Contains(err.Error(), "IPV6: net.config:2 wants y, my.toml:10 wants n") {
		t.Errorf("with a fragment: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		name, old, new string
		want           string
	}{
		{"unknown key", `target =`, `tarjet =`, `my.toml:3: unknown key "tarjet"`},
		{"unknown key in a table", `commands =`, `command =`, `my.toml:15: unknown key "match.command"`},
		{"unknown key in an inline table", `{ min = 1, max = 4 }`, `{ min = 1, top = 4 }`, `my.toml:27: unknown key "claims.`},
		{"unknown key in a list of tables", `description = "time zone"`, `sort = "time zone"`, `my.toml:40: unknown key "parameters.sort"`},
		{"unknown table", `[health]`, `[healthy]`, `my.toml:31: unknown key "healthy"`},
		{"two unknown keys", `target = "kexec"`, "a = 1\nb = 2", `my.toml:3: unknown key "a"`},
		{"key twice", `target = "kexec"`, "target = \"kexec\"\ntarget = \"qemu\"", `my.toml:4: `},
		{"no TOML", `# a comment`, `FROM scratch`, `my.toml:1: `},
		{"unfinished string", `description = "test"`, `description = "test`, `my.toml:2: `},
		{"list for a string", `target = "kexec"`, `target = ["kexec"]`, `my.toml:3: `},
		{"string for a list", `fragments = ["net"]`, `fragments = "net"`, `my.toml:4: `},
		{"number in a list of strings", `["usr/share/doc/**", "*.pyc"]`, `["usr/share/doc/**", 1]`, `my.toml:12: `},
		{"string for a number", `max = 4 }`, `max = "4" }`, `my.toml:27: `},
		{"number beyond 64 bits", `max = 4 }`, `max = 9223372036854775808 }`, `my.toml:27: `},
		{"table for a value", `memory = { min = "64MiB", max = "1g" }`, `memory = 64`, `my.toml:28: `},
		{"no description", `description = "test"`, ``, `my.toml: description: missing`},
		{"unknown target", `"kexec"`, `"vmware"`, `my.toml: target: "vmware" is none of qemu, kexec, cokernel, multikernel`},
		{"size without a number", `"64MiB"`, `"much"`, `my.toml: claims: memory.min: "much" is not a size such as 64MiB`},
		{"size that is missing", `min = "64MiB", `, ``, `my.toml: claims: memory.min: "" is not a size such as 64MiB`},
		{"negative size", `"64MiB"`, `"-1"`, `my.toml: claims: `},
		{"size beyond 64 bits", `"1g"`, `"99999999999t"`, `my.toml: claims: `},
		{"min above max", `min = "64MiB"`, `min = "2GiB"`, `my.toml: claims: claims.memory: needs 1 <= min <= max, has min 2147483648, max 1073741824`},
		{"no CPUs", `cpus = { min = 1`, `cpus = { min = 0`, `my.toml: claims: claims.cpus: `},
		{"duration without a unit", `"5s"`, `"5"`, `my.toml: health: interval: "5": time: missing unit`},
		{"duration of nothing", `"5s"`, `"0s"`, `my.toml: health: interval: "0s": must be positive`},
		{"negative duration", `"1m"`, `"-1m"`, `my.toml: health: timeout: "-1m": must be positive`},
		{"duration that is missing", `timeout = "1m"`, ``, `my.toml: health: timeout: "": `},
		{"two checks", `tcp = 80`, "tcp = 80\nexec = [\"x\"]", `my.toml: app.health: needs exactly one of tcp`},
		{"no check", `tcp = 80`, ``, `my.toml: app.health: needs exactly one of tcp`},
		{"port beyond 16 bits", `tcp = 80`, `tcp = 65536`, `my.toml: app.health: needs exactly one of tcp (1-65535)`},
		{"parameter of an unknown type", `type = "string"`, `type = "text"`, `my.toml: parameters: TZ: type "text" is none of`},
		{"parameter of the linker", `"TZ"`, `"LD_PRELOAD"`, `my.toml: parameters: LD_PRELOAD: the dynamic linker's`},
		{"default of another type", `type = "string"`, `type = "int"`, `my.toml: parameters: TZ: "UTC" is not of type int`},
		{"environment without a value", `"A=1"`, `"A"`, `my.toml: app.env: "A" is not NAME=VALUE`},
		{"pattern with a slash first", `"*.pyc"`, `"/*.pyc"`, `my.toml: drop: "/*.pyc" is not a pattern`},
		{"pattern that is empty", `"*.pyc"`, `""`, `my.toml: drop: "" is not a pattern`},
		{"pattern of the root", `"*.pyc"`, `"."`, `my.toml: drop: "." is not a pattern`},
		{"pattern that leads out", `"*.pyc"`, `"../*.pyc"`, `my.toml: drop: "../*.pyc" is not a pattern`},
		{"pattern of what some images have", `drop = ["usr/share/doc/**", "*.pyc"]`, `drop_if_present = ["usr/"]`, `my.toml: drop: "usr/" is not a pattern`},
		{"pattern with an open bracket", `"*.pyc"`, `"*.[py"`, `my.toml: drop: "*.[py" is not a pattern`},
		{"config line without a value", `"NET=y"`, `"NET"`, `my.toml:7: "CONFIG_NET" is neither`},
		{"config line with a wrong value", `"HZ=100"`, `"HZ=fast"`, `my.toml:9: HZ: value "fast"`},
		{"config line with the prefix", `"IPV6=n"`, `"CONFIG_IPV6=n"`, `my.toml:10: "CONFIG_IPV6=n": symbols have no prefix CONFIG_ here`},
		{"config line of two lines", `"IPV6=n"`, `"IPV6=n\nCONFIG_EVIL=y"`, `my.toml:10: "IPV6=n\nCONFIG_EVIL=y" is more than one line`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if strings.Count(good, test.old) != 1 {
				t.Fatalf("%q is in the recipe %d times", test.old, strings.Count(good, test.old))
			}
			_, err := Parse("my.toml", []byte(strings.Replace(good, test.old, test.new, 1)))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
		})
	}
	if _, err := Parse("my.toml", make([]byte, maxSize+1)); err == nil || err.Error() != "my.toml: larger than 1048576 bytes" {
		t.Error(err)
	}
	// The TOML library takes minutes to list the places of so many.
	if _, err := Parse("my.toml", []byte(strings.Repeat("[[x]]\n", 100_000))); err == nil || err.Error() != "my.toml: more than 8192 lines" {
		t.Error(err)
	}
	if _, err := Parse("my.toml", nil); err == nil {
		t.Error("an empty file is taken")
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.toml")
	if err := os.WriteFile(path, []byte(good), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := Open(path); err != nil || r.Name != "app" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, name := range []string{"nosuch", "", "Redis"} {
		if _, err := Open(name); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "have nginx, redis, static") {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"nosuch.toml", "./redis", "../recipes/redis"} {
		if _, err := Open(name); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	type words = []string
	tests := []struct {
		entrypoint, cmd words
		static          bool
		want            string
	}{
		{words{"redis-server"}, nil, false, "redis"},
		{words{"/usr/bin/redis-server", "/etc/redis.conf"}, nil, false, "redis"},
		{words{"docker-entrypoint.sh"}, words{"redis-server"}, false, "redis"},
		{nil, words{"redis-server"}, true, "redis"},
		{words{"/docker-entrypoint.sh"}, words{"nginx", "-g", "daemon off;"}, false, "nginx"},
		{words{"/app"}, nil, true, "static"},
		{words{"/app", "--config", "/etc/nginx"}, nil, true, "static"},
		{words{"/app"}, nil, false, ""},
		{words{"redis-server-exporter"}, nil, false, ""},
		{nil, nil, false, ""},
	}
	for _, test := range tests {
		r, err := Choose(test.entrypoint, test.cmd, test.static)
		switch {
		case test.want == "" && !errors.Is(err, ErrUnknown):
			t.Errorf("%q %q: got %v, %v", test.entrypoint, test.cmd, r, err)
		case test.want != "" && (err != nil || r.Name != test.want):
			t.Errorf("%q %q: got %v, %v, want %s", test.entrypoint, test.cmd, r, err, test.want)
		}
	}
}

func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"usr/share/doc/**", "usr/share/doc/redis", true},
		{"usr/share/doc/**", "usr/share/doc/redis/README", true},
		{"usr/share/doc/**", "usr/share/doc/.hidden", true},
		{"usr/share/doc/**", "usr/share/doc", false}, // the folder stays
		{"usr/share/doc/**", "usr/share/docs", false},
		{"usr/share/doc/**", "usr/share", false},
		{"*/cache/**", "var/cache", false},
		{"*/cache/**", "var/cache/apt", true},
		{"**/cache/**", "cache", false},
		{"**/cache/**", "a/b/cache", false},
		{"**/cache/**", "a/b/cache/c", true},
		{"**/cache/**", "a/cache/cache", true},
		{"*.pyc", "a.pyc", true},
		{"*.pyc", "lib/a.pyc", false},
		{"**/*.pyc", "lib/x/a.pyc", true},
		{"**/*.pyc", "a.pyc", true},
		{"etc/{a,b}", "etc/b", true},
		{"boot", "boot", true},
		{"boot", "boot/vmlinuz", false}, // it goes with the folder
		{"**", "anything/below", true},
	}
	for _, test := range tests {
		if got := Matches([]string{"never", test.pattern}, test.name); got != test.want {
			t.Errorf("%s: %s: got %v", test.pattern, test.name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse("f.toml", data)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "f.toml") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		for _, s := range r.Config.Settings {
			if s.Pos.Line < 1 || s.Pos.Line > 1+strings.Count(string(data), "\n") {
				t.Errorf("%s at line %d", s, s.Pos.Line)
			}
		}
	})
}
