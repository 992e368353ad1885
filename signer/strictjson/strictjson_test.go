// SPDX-License-Identifier: Apache-2.0

package strictjson

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

type inner struct {
	Shared string `json:"shared"`
}

type document struct {
	inner
	Version int              `json:"version"`
	List    []inner          `json:"list"`
	Map     map[string]inner `json:"map"`
	Any     any              `json:"any"`
	Hidden  int              `json:"-"`
}

func TestDecode(t *testing.T) {
	const limit = 200
	for text, want := range map[string]string{ // parts of errors
		`{"version":1,"shared":"x","list":[{"shared":"a"}],"map":{"Any Key":{"shared":"b"}},"any":{"x":[1]}}`: "",
		` {} `:                        "",
		`{"Version":1}`:               `unknown field "Version"`,
		`{"inner":{}}`:                `unknown field "inner"`,
		`{"-":1}`:                     `unknown field "-"`,
		`{"Hidden":1}`:                `unknown field "Hidden"`,
		`{"shared":"a","shared":"b"}`: `field "shared" occurs twice`,
		`{"list":[{"other":1}]}`:      `unknown field "other"`,
		`{"map":{"k":{"other":1}}}`:   `unknown field "other"`,
		`{"map":{"k":{},"k":{}}}`:     `field "k" occurs twice`,
		`{"any":{"x":1,"x":2}}`:       `field "x" occurs twice`,
		`{"any":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`: "nested deeper than",
		`{} {}`:                      "data after the end",
		`{"version":"1"}`:            "cannot unmarshal",
		`{"version":1`:               "EOF",
		``:                           "EOF",
		strings.Repeat(" ", limit+1): "larger than 200 bytes",
	} {
		err := Decode([]byte(text), limit, &document{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	var d document
	if err := Decode([]byte(`{"shared":"x","version":2}`), limit, &d); err != nil || d.Shared != "x" || d.Version != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestDecodeVersion(t *testing.T) {
	for text, want := range map[string]string{
		`{"version":1}`:                "",
		`{"version":2,"unknown":true}`: "unsupported version 2: this program reads version 1",
		`{}`:                           "no version field",
		`{"version":1,"unknown":true}`: "unknown field",
	} {
		err := DecodeVersion([]byte(text), 100, 1, &document{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if strings.HasPrefix(want, "unsupported") != errors.Is(err, ErrVersion) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

type (
	Loose struct {
		A any `json:"a"`
	}
	Also   Loose
	Strict struct {
		B int `json:"b"`
	}
)

// What embeds others is read as encoding/json reads it.
func TestEmbedded(t *testing.T) {
	embed := func(v any) reflect.StructField {
		t := reflect.TypeOf(v)
		name := t.Name()
		if t.Kind() == reflect.Pointer {
			name = t.Elem().Name()
		}
		return reflect.StructField{Name: name, Type: t, Anonymous: true}
	}
	outer := reflect.StructField{Name: "A", Type: reflect.TypeFor[Strict](), Tag: `json:"a"`}
	for name, test := range map[string]struct {
		fields []reflect.StructField
		text   string
		good   bool
	}{
		"inner":               {[]reflect.StructField{embed(Loose{})}, `{"a":{"x":1}}`, true},
		"as outer, good":      {[]reflect.StructField{embed(Loose{}), outer}, `{"a":{"b":1}}`, true},
		"as outer, bad":       {[]reflect.StructField{embed(Loose{}), outer}, `{"a":{"x":1}}`, false},
		"by pointer":          {[]reflect.StructField{embed(&Strict{})}, `{"b":1}`, true},
		"by pointer, unknown": {[]reflect.StructField{embed(&Strict{})}, `{"x":1}`, false},
		"two of one name":     {[]reflect.StructField{embed(Loose{}), embed(Also{})}, `{"a":1}`, false},
	} {
		into := reflect.New(reflect.StructOf(test.fields)).Interface()
		if err := Decode([]byte(test.text), 100, into); (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
