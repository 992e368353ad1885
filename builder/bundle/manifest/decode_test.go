// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/signer/strictjson"
)

const goodSpec = `{"version":2,"name":"web","app":{"entrypoint":["/web"],"env":["PATH=/bin","MODE=image"]},
"parameters":[{"name":"PORT","type":"int","default":"80"},{"name":"MODE","type":"string"},
{"name":"http_proxy","type":"string"},{"name":"HTTP_PROXY","type":"string"}],"network":true}`

func TestDecodeSpec(t *testing.T) {
	edit := func(old, new string) string {
		if !strings.Contains(goodSpec, old) {
			t.Fatalf("the spec has no %s", old)
		}
		return strings.Replace(goodSpec, old, new, 1)
	}
	tests := []struct {
		name, doc, want string // want is a part of the error; empty means none
	}{
		{"good", goodSpec, ""},
		{"unknown field", edit(`"network":true`, `"network":true,"mounts":[]`), `unknown field "mounts"`},
		{"unknown field inside", edit(`"entrypoint"`, `"caps":[],"entrypoint"`), `unknown field "caps"`},
		{"another case", edit(`"network"`, `"Network"`), `unknown field "Network"`},
		{"another case of a repeated field", edit(`"network":true`, `"network":true,"NETWORK":false`), `unknown field "NETWORK"`},
		{"repeated field", edit(`"network":true`, `"network":true,"network":false`), `"network" occurs twice`},
		{"repeated field inside", edit(`"type":"int"`, `"type":"int","type":"string"`), `"type" occurs twice`},
		{"data after the value", goodSpec + `{}`, "after"},
		{"cut short", goodSpec[:len(goodSpec)-1], "unexpected end"},
		{"too deep", edit(`"network":true`, `"network":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)), "deeper"},
		{"too large", goodSpec + strings.Repeat(" ", MaxSize), "larger than"},
		{"no version", edit(`"version":2,`, ``), "no version"},
		{"newer version with its own fields", edit(`"version":2,`, `"version":3,"new":0,`), "unsupported version 3"},
		{"wrong type", edit(`"network":true`, `"network":1`), "cannot unmarshal"},
		{"name", edit(`"web"`, `"Web"`), "DNS label"},
		{"name with a newline", edit(`"web"`, `"web\n"`), "DNS label"},
		{"name that is too long", edit(`"web"`, `"`+strings.Repeat("a", 64)+`"`), "DNS label"},
		{"name that ends in a hyphen", edit(`"web"`, `"web-"`), "DNS label"},
		{"no command", edit(`"entrypoint":["/web"],`, ``), "neither"},
		{"env", edit(`"PATH=/bin"`, `"PATH"`), "NAME=VALUE"},
		{"health", edit(`"entrypoint"`, `"health":{"tcp":1,"exec":["x"],"interval":1,"timeout":1,"retries":1},"entrypoint"`), "exactly one"},
		{"volumes", edit(`"entrypoint"`, `"volumes":["/data","/data/sub","/devices"],"readOnly":true,"entrypoint"`), ""},
		{"relative volume", edit(`"entrypoint"`, `"volumes":["data"],"entrypoint"`), `app.volumes: "data" is not a clean`},
		{"volume with a trailing slash", edit(`"entrypoint"`, `"volumes":["/data/"],"entrypoint"`), "not a clean"},
		{"volume with dots", edit(`"entrypoint"`, `"volumes":["/data/../etc"],"entrypoint"`), "not a clean"},
		{"root as a volume", edit(`"entrypoint"`, `"volumes":["/"],"entrypoint"`), "below the root"},
		{"PID 1's folder as a volume", edit(`"entrypoint"`, `"volumes":["/.tenon"],"entrypoint"`), "not the app's"},
		{"volume below the kernel's", edit(`"entrypoint"`, `"volumes":["/proc/sys"],"entrypoint"`), "not the app's"},
		{"volume twice", edit(`"entrypoint"`, `"volumes":["/a","/b","/a"],"entrypoint"`), "twice"},
		{"linker's variable", edit(`"name":"PORT"`, `"name":"LD_PRELOAD"`), "dynamic linker"},
		{"default of another type", edit(`"80"`, `"http"`), "not of type int"},
		{"parameter twice", edit(`"name":"PORT","type":"int","default":"80"`, `"name":"MODE","type":"string"`), "declared twice"},
		{"parameter name with a digit first", edit(`"PORT"`, `"8080"`), "not the name"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := DecodeSpec([]byte(test.doc))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if _, err := DecodeSpec([]byte(`{"version":9}`)); !errors.Is(err, strictjson.ErrVersion) {
		t.Errorf("got %v, want strictjson.ErrVersion", err)
	}
}

func TestEnvironment(t *testing.T) {
	spec, err := DecodeSpec([]byte(goodSpec))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		set  map[string]string
		want []string // nil means refused
	}{
		{"defaults", nil, []string{"PATH=/bin", "MODE=image", "PORT=80"}},
		{"set", map[string]string{"PORT": "8080", "MODE": "x=y"}, []string{"PATH=/bin", "PORT=8080", "MODE=x=y"}},
		{"set to nothing", map[string]string{"MODE": ""}, []string{"PATH=/bin", "PORT=80", "MODE="}},
		{"names apart in case", map[string]string{"http_proxy": "a", "HTTP_PROXY": "b"}, []string{"PATH=/bin", "MODE=image", "PORT=80", "http_proxy=a", "HTTP_PROXY=b"}},
		{"image's own variable", map[string]string{"PATH": "/evil"}, nil},
		{"undeclared", map[string]string{"LD_PRELOAD": "x"}, nil},
		{"another case", map[string]string{"port": "1"}, nil},
		{"wrong type", map[string]string{"PORT": "1e3"}, nil},
		{"NUL", map[string]string{"MODE": "a\x00b"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := spec.Environment(test.set)
			if (err != nil) != (test.want == nil) || !slices.Equal(got, test.want) {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	if !slices.Equal(spec.App.Env, []string{"PATH=/bin", "MODE=image"}) {
		t.Errorf("the spec was changed: %q", spec.App.Env)
	}
}

func TestCheckBundleVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"": true, "1.4.0": true, "0.0.1-rc.1": true, "10.20.30": true,
		"1.4": false, "v1.4.0": false, "1.4.0+build": false, "01.4.0": false, "1.4.0\n": false, "latest": false, "1.0.0-" + strings.Repeat("a", 64): false,
	} {
		if err := CheckBundleVersion(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func FuzzDecodeSpec(f *testing.F) {
	f.Add([]byte(goodSpec))
	f.Add([]byte(`{"version":2,"Version":3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := DecodeSpec(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		spec2, err := DecodeSpec(again)
		if err != nil {
			t.Fatalf("%s is refused after encoding: %v", again, err)
		}
		// Empty lists are left out of the encoding.
		if third, _ := json.Marshal(spec2); !reflect.DeepEqual(again, third) {
			t.Errorf("%s became %s", again, third)
		}
		if _, err := spec.Environment(nil); err != nil {
			t.Errorf("defaults are refused: %v", err)
		}
	})
}
