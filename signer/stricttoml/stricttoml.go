// SPDX-License-Identifier: Apache-2.0

// Package stricttoml decodes TOML of which every key is known.
//
// In: a document whole. Out: a struct whose fields are tagged with keys in lower case.
// Refused: keys that are unknown or in another case, with the line; more than 8,192 lines or
// keys.
package stricttoml

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Error is an error of which the line is known.
type Error struct {
	Line int // from 1
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Text) }

// Decode decodes a document whose keys are all known, and in lower case. The error is an *Error
// where the line is known.
func Decode(data []byte, into any) error {
	for _, what := range []struct{ name, mark string }{{"lines", "\n"}, {"keys", "="}} {
		if bytes.Count(data, []byte(what.mark)) > maxEntries {
			return fmt.Errorf("more than %d %s", maxEntries, what.name)
		}
	}
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return explain(err)
	}
	if err := checkCase(tree); err != nil {
		return err
	}
	// The library finds where all unknown keys are, in a time that grows with the square of their number.
	if unknown := unknownKeys(tree, reflect.TypeOf(into)); len(unknown) > few {
		return fmt.Errorf("unknown key %q, and %d more", unknown[0], len(unknown)-1)
	}
	return explain(toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(into))
}

const (
	maxEntries = 8192
	few        = 16
)

// unknownKeys lists the keys for which a type has no field.
func unknownKeys(value any, t reflect.Type) (out []string) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			out = append(out, unknownKeys(element, t)...)
		}
	case map[string]any:
		if t.Kind() != reflect.Struct {
			return nil
		}
		known := map[string]reflect.Type{}
		for i := range t.NumField() {
			name := cmp.Or(t.Field(i).Tag.Get("toml"), strings.ToLower(t.Field(i).Name))
			known[name] = t.Field(i).Type
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if of, ok := known[key]; ok {
				out = append(out, unknownKeys(v[key], of)...)
			} else {
				out = append(out, key)
				if list, ok := v[key].([]any); ok { // each of its elements is one for the library
					out = append(out, make([]string, max(0, len(list)-1))...)
				}
			}
		}
	}
	return out
}

// checkCase refuses keys that are not as they are documented: of Threshold and
// threshold, both taken for one key, the last would count.
func checkCase(value any) error {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if key != strings.ToLower(key) {
				return fmt.Errorf("unknown key %q: keys are in lower case", key)
			}
			if err := checkCase(v[key]); err != nil {
				return err
			}
		}
	case []any:
		for _, element := range v {
			if err := checkCase(element); err != nil {
				return err
			}
		}
	}
	return nil
}

// explain names the line, and the key where it is unknown.
func explain(err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		line, _ := strict.Errors[0].Position()
		return &Error{line, fmt.Sprintf("unknown key %q", strings.Join(strict.Errors[0].Key(), "."))}
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		return &Error{line, strings.TrimPrefix(decode.Error(), "toml: ")}
	}
	return err
}
