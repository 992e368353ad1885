// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

var (
	day    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	digest = "sha256:" + strings.Repeat("0a", 32)
)

// bundled is a record as Create takes it.
func bundled(name string) *Record {
	return &Record{Name: name, Backend: "qemu", Bundle: Bundle{Reference: "oci:web", Digest: digest, Name: "web", Version: "1.2.0", Identity: "release CI"}}
}

// full has every field.
func full() *Record {
	r := bundled("web")
	r.Version, r.ID, r.State, r.BootID, r.Created, r.Started, r.Ended = Version, strings.Repeat("0b", 16), Failed, "boot", day, day, day
	node := 1
	r.Request = Request{
		Settings: loader.Settings{
			CPUs: 3, Memory: 1 << 30, Hostname: "front", Env: map[string]string{"PORT": "80"},
			Forwards: []loader.Forward{{Protocol: "tcp", HostAddress: "127.0.0.1", HostPort: 8080, GuestPort: 80}},
		},
		CPUList: alloc.NewCPUSet(2, 3, 8), SplitCores: true, PageSize: 2 << 20, Node: &node, Devices: []string{"0000:03:00.0"},
		HangTimeout: time.Minute, Trust: loader.Trust{Key: "/k", Cert: "/c", Policy: "/p", State: "/s", AllowUnsigned: true},
	}
	r.Starts = 2
	r.Held = Held{CPUs: "2-3,8", Memory: []Memory{{0, 1 << 30}, {1, 1 << 20}}, Devices: []string{"0000:03:00.0"}}
	r.Supervisor = &Process{PID: 7, Start: 9, BootID: "boot"}
	r.Exit, r.Reason, r.Health = &control.Exit{Code: 127, Error: "no such file"}, "it burnt", &control.Health{Status: "unhealthy", Output: "no answer"}
	return r
}

// The names are what 'mortise inspect --format json' prints.
const fullJSON = `{"version":1,"name":"web","id":"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b","state":"failed",` +
	`"bundle":{"reference":"oci:web","digest":"sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a","name":"web","version":"1.2.0","identity":"release CI"},` +
	`"backend":"qemu","request":{"cpus":3,"memory":1073741824,"hostname":"front","env":{"PORT":"80"},"forwards":["127.0.0.1:8080:80/tcp"],` +
	`"cpuList":"2-3,8","splitCores":true,"pageSize":2097152,"node":1,"devices":["0000:03:00.0"],"hangTimeout":60000000000,` +
	`"trust":{"key":"/k","cert":"/c","policy":"/p","state":"/s","allowUnsigned":true}},"held":{"cpus":"2-3,8","memory":[{"node":0,"bytes":1073741824},{"node":1,"bytes":1048576}],"devices":["0000:03:00.0"]},` +
	`"supervisor":{"pid":7,"start":9,"bootID":"boot"},"bootID":"boot","starts":2,"created":"2026-03-01T12:00:00Z","started":"2026-03-01T12:00:00Z","ended":"2026-03-01T12:00:00Z",` +
	`"exit":{"code":127,"error":"no such file"},"reason":"it burnt","health":{"status":"unhealthy","output":"no answer"}}` + "\n"

// inAnotherOrder is the record as it was written before settings came first.
func inAnotherOrder() string {
	const settings = `"memory":1073741824,"hostname":"front","env":{"PORT":"80"},"forwards":["127.0.0.1:8080:80/tcp"],`
	text := strings.Replace(fullJSON, settings, "", 1)
	return strings.Replace(text, `"hangTimeout"`, settings+`"hangTimeout"`, 1)
}

func TestRecordIsStable(t *testing.T) {
	if data, err := full().encode(); err != nil || string(data) != fullJSON {
		t.Errorf("%v\n%s", err, data)
	}
	for _, text := range []string{fullJSON, inAnotherOrder()} {
		r, err := decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := r.encode(); err != nil || string(data) != fullJSON {
			t.Errorf("%v\n%s", err, data)
		}
	}
}

func TestDecode(t *testing.T) {
	edit := func(old, new string) string {
		if !strings.Contains(fullJSON, old) {
			t.Fatalf("the record has no %s", old)
		}
		return strings.Replace(fullJSON, old, new, 1)
	}
	for _, test := range []struct{ name, doc, want string }{
		{"empty", "", "unexpected end"},
		{"cut short", fullJSON[:200], "unexpected end"},
		{"garbage", "\x00\xff\x13", "invalid character"},
		{"null", "null", "no version"},
		{"a list", "[]", "cannot unmarshal"},
		{"more after it", fullJSON + "{}", "after top-level value"},
		{"repeated field", edit(`"state":"failed"`, `"state":"failed","state":"stopped"`), `"state" occurs twice`},
		{"repeated version", edit(`"version":1`, `"version":2,"version":1`), `"version" occurs twice`},
		{"repeated field inside", edit(`"pid":7`, `"pid":7,"pid":8`), `"pid" occurs twice`},
		{"unknown field", edit(`"state"`, `"mood":"good","state"`), `unknown field "mood"`},
		{"another case", edit(`"state"`, `"State"`), `unknown field "State"`},
		{"too large", fullJSON + strings.Repeat(" ", limit.Record), "larger than"},
		{"no version", edit(`"version":1,`, ``), "no version"},
		{"newer version with its own fields", edit(`"version":1`, `"version":2,"new":1`), "unsupported version 2: this program reads version 1"},
		{"version 0", edit(`"version":1`, `"version":0`), "unsupported version 0"},
		{"no name", edit(`"name":"web"`, `"name":""`), `name ""`},
		{"name that leads out", edit(`"name":"web"`, `"name":"../web"`), `name "../web"`},
		{"short id", edit(`"id":"0b`, `"id":"`), "id:"},
		{"id in capitals", edit(`"id":"0b`, `"id":"0B`), "id:"},
		{"unknown state", edit(`"failed"`, `"lost"`), `state: "lost" is unknown`},
		{"digest of another kind", edit(`"sha256:0a`, `"sha512:0a`), "bundle.digest"},
		{"short digest", edit(`"sha256:0a`, `"sha256:`), "bundle.digest"},
		{"no reference", edit(`"oci:web"`, `""`), "bundle.reference"},
		{"escape sequence", edit(`"release CI"`, `"\u001b[2J"`), "bundle.identity"},
		{"two lines", edit(`"it burnt"`, `"it\nburnt"`), "reason"},
		{"exit error of two lines", edit(`"no such file"`, `"no\nfile"`), "exit.error"},
		{"health of two lines", edit(`"no answer"`, `"no\nanswer"`), "health.output"},
		{"unknown health", edit(`"unhealthy"`, `"ill"`), "health.status"},
		{"no back end", edit(`"qemu"`, `""`), "backend"},
		{"no boot", edit(`"bootID":"boot","starts":2,"created"`, `"bootID":"","created"`), "bootID"},
		{"CPUs", edit(`{"cpus":"2-3,8"`, `{"cpus":"all"`), "held.cpus"},
		{"nodes out of order", edit(`{"node":1`, `{"node":0`), "held.memory"},
		{"negative node", edit(`"node":0`, `"node":-1`), "held.memory"},
		{"no bytes", edit(`1048576`, `0`), "held.memory"},
		{"more bytes than a number has", edit(`1048576`, `9223372036854775808`), "cannot unmarshal"},
		{"device", edit(`"0000:03:00.0"]},"sup`, `"../0000:03:00.0/x"]},"sup`), "held.devices"},
		{"supervisor without a number", edit(`"pid":7`, `"pid":0`), "supervisor"},
		{"supervisor of no boot", edit(`"start":9,"bootID":"boot"`, `"start":9,"bootID":""`), "supervisor"},
		{"running without a supervisor", strings.NewReplacer(
			`"supervisor":{"pid":7,"start":9,"bootID":"boot"},`, ``, `"failed"`, `"loaded"`).Replace(fullJSON), "supervisor: missing"},
		{"running and ended", edit(`"failed"`, `"running"`), "ended: does not go"},
		{"failed without an end", edit(`"ended":"2026-03-01T12:00:00Z",`, ``), "ended: does not go"},
		{"failed without a reason", edit(`"reason":"it burnt",`, ``), "reason: does not go"},
		{"stopped with a reason", edit(`"failed"`, `"stopped"`), "reason: does not go"},
		{"never created", edit(`"created":"2026-03-01T12:00:00Z",`, ``), "created"},
		{"time", edit(`"2026-03-01T12:00:00Z"`, `"yesterday"`), "parsing time"},
	} {
		_, err := decode([]byte(test.doc))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
		if is := strings.Contains(test.want, "unsupported version"); errors.Is(err, strictjson.ErrVersion) != is {
			t.Errorf("%s: ErrVersion is not %v", test.name, is)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"w", "web", "Web-1.2_x", "9", strings.Repeat("a", 63)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", ".tmp", "-f", "_x", "a/b", "a b", "a\n", "a\x00", "ä", "aä", strings.Repeat("a", 64)} {
		if err := CheckName(name); !errors.Is(err, ErrName) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// FuzzDecode checks that what is accepted is written the same way again, and within the limit.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(fullJSON))
	if data, err := json.Marshal(full()); err == nil {
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data)
		if err != nil {
			return
		}
		first, err := r.encode()
		if err != nil {
			if len(data)*6 < limit.Record { // escapes make it longer, nothing else can
				t.Fatalf("accepted, but not written: %v", err)
			}
			return
		}
		r, err = decode(first)
		if err != nil {
			t.Fatalf("written, but not accepted: %v\n%s", err, first)
		}
		if second, err := r.encode(); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("%v\n%s%s", err, first, second)
		}
	})
}

func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		work()
		return
	}
	os.Exit(m.Run())
}
