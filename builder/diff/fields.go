// SPDX-License-Identifier: Apache-2.0

package diff

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
)

// FieldChange is a field of the bundle's manifest, or the digest of a layer,
// that differs. Fields of nested objects are joined with dots. Elements of a
// list have their name, kind or, of NAME=VALUE, what is before the sign:
// commandLine, claims.devices.net.count.min, parameters.TZ.default, app.env.PATH,
// app.entrypoint, layers.kernel.
type FieldChange struct {
	Field string `json:"field"`
	A     any    `json:"a"` // JSON value, numbers as json.Number; null where the field is not there
	B     any    `json:"b"`
}

var layerNames = map[types.MediaType]string{
	bundle.KernelType: "kernel", bundle.InitramfsType: "initramfs", bundle.ConfigType: "config",
	bundle.SystemMapType: "systemMap", bundle.FidelityType: "fidelity",
}

// fields returns the manifest as JSON values, so that a field that this package
// has never heard of is compared like any other, with the layers' digests.
func fields(b *bundle.Bundle) (map[string]any, error) {
	raw, err := json.Marshal(b.Manifest)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber() // sizes are beyond what a float64 holds
	if err := dec.Decode(&out); err != nil {
		return nil, err
	}
	hide(out, b.Manifest.Parameters)
	layers := map[string]any{}
	for mt, name := range layerNames {
		if b.Size(mt) > 0 {
			layers[name] = b.LayerDigest(mt).String()
		}
	}
	out["layers"] = layers
	return out, nil
}

// secret is a value that is compared, and not shown.
type secret string

func (secret) MarshalJSON() ([]byte, error) { return json.Marshal(manifest.Mask) }

// secretSetting is an element NAME=VALUE of the environment with such a value.
type secretSetting struct {
	name  string
	value secret
}

func (s secretSetting) MarshalJSON() ([]byte, error) {
	return json.Marshal(s.name + "=" + manifest.Mask)
}

// hide makes secrets of the values of secret parameters, in the form that fields has them in.
func hide(fields map[string]any, parameters []manifest.Parameter) {
	app, _ := fields["app"].(map[string]any)
	env, _ := app["env"].([]any)
	declared, _ := fields["parameters"].([]any) // in the order of parameters
	for i, p := range parameters {
		if !p.Secret {
			continue
		}
		object, _ := declared[i].(map[string]any)
		if value, ok := object["default"].(string); ok {
			object["default"] = secret(value)
		}
		for j, e := range env {
			if name, value, _ := strings.Cut(fmt.Sprint(e), "="); name == p.Name {
				env[j] = secretSetting{name, secret(value)}
			}
		}
	}
}

func compareFields(a, b map[string]any) []FieldChange {
	return compareValues([]FieldChange{}, "", a, b)
}

func compareValues(out []FieldChange, path string, a, b any) []FieldChange {
	if reflect.DeepEqual(a, b) {
		return out
	}
	n := len(out)
	if ma, mb := members(a), members(b); ma != nil && mb != nil {
		for _, name := range names(ma, mb) {
			out = compareValues(out, strings.TrimPrefix(path+"."+name, "."), ma[name], mb[name])
		}
	}
	if len(out) == n { // values, or only the order differs
		out = append(out, FieldChange{path, a, b})
	}
	return out
}

// members returns what an object, or a list whose elements have different keys,
// consists of: nil when it is neither. What is not there has no members.
func members(v any) map[string]any {
	switch v := v.(type) {
	case nil:
		return map[string]any{}
	case map[string]any:
		return v
	case []any:
		return keyed(v)
	}
	return nil
}

func keyed(list []any) map[string]any {
	out := map[string]any{}
	for _, e := range list {
		key, value := keyOf(e)
		if _, twice := out[key]; key == "" || twice {
			return nil
		}
		out[key] = value
	}
	return out
}

// keyOf names an element of a list; no key is empty.
func keyOf(element any) (key string, value any) {
	switch e := element.(type) {
	case secretSetting:
		return e.name, e.value
	case string:
		name, value, ok := strings.Cut(e, "=")
		if ok {
			return name, value
		}
	case map[string]any:
		for _, field := range []string{"name", "kind"} {
			if key, ok := e[field].(string); ok {
				return key, e
			}
		}
	}
	return "", nil
}
