// SPDX-License-Identifier: Apache-2.0

// Package strictjson decodes JSON so that any two readers see the same.
//
// In: a document whole, and how large it may be. Out: a struct whose fields are tagged.
// Refused: larger documents, other versions, fields that are unknown, in another case or
// there twice, deep nesting, more values than one for 16 bytes of the limit, and anything
// after the value.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
)

// ErrVersion says that the document is of a version that this package does not read.
var ErrVersion = errors.New("unsupported version")

// DecodeVersion is Decode of a document that has a field version. Another
// version is an error that wraps ErrVersion, whatever else it has: its fields are
// others.
func DecodeVersion(data []byte, limit, version int, into any) error {
	if len(data) > limit {
		return fmt.Errorf("larger than %d bytes", limit)
	}
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return err
	}
	if head.Version == nil {
		return errors.New("no version field")
	}
	if *head.Version != version {
		return fmt.Errorf("%w %d: this program reads version %d", ErrVersion, *head.Version, version)
	}
	return Decode(data, limit, into)
}

// Decode decodes one JSON value into into, a pointer. It refuses more
// than limit bytes, field names that are unknown or in another case, names that
// occur twice in one object, deep nesting, more than limit/16 values (1,024 are never too many),
// and anything after the value.
func Decode(data []byte, limit int, into any) error {
	if len(data) > limit {
		return fmt.Errorf("larger than %d bytes", limit)
	}
	if err := CheckValues(data, max(limit/bytesPerValue, fewValues)); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := checkKeys(dec, reflect.TypeOf(into), 0); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("data after the end of the JSON value")
	}
	return json.Unmarshal(data, into)
}

const (
	maxDepth      = 32
	bytesPerValue = 16 // on average, in the largest document
	fewValues     = 1024
	maxString     = 1 << 20 // in bytes
)

// CheckValues refuses a document with more than most values, objects and lists among them, or
// with a string of more than 1 MiB: a value may take two bytes in JSON, and hundreds when it is
// decoded, and decoders hold a long string several times. What is no JSON, it leaves to whoever
// decodes it.
func CheckValues(data []byte, most int) error {
	values, inString, begin := 1, false, 0
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++ // what is escaped ends nothing
		case c == '"':
			if inString && i-begin > maxString {
				return fmt.Errorf("a string of more than %d bytes", maxString)
			}
			inString, begin = !inString, i
		case !inString && (c == ',' || c == '{' || c == '['):
			values++
		}
	}
	if values > most {
		return fmt.Errorf("more than %d values", most)
	}
	return nil
}

// checkKeys walks one value, which is to be decoded into t. encoding/json takes
// a field's name in any case and the last of several, so that two readers could
// see two documents.
func checkKeys(dec *json.Decoder, t reflect.Type, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		var of reflect.Type // of the member; nil where decoding fails or takes all
		if t != nil && slices.Contains([]reflect.Kind{reflect.Slice, reflect.Array, reflect.Map}, t.Kind()) {
			of = t.Elem()
		}
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			key := tok.(string)
			if seen[key] {
				return fmt.Errorf("field %q occurs twice", key)
			}
			seen[key] = true
			if t != nil && t.Kind() == reflect.Struct {
				if of = fieldType(t, key); of == nil {
					return fmt.Errorf("unknown field %q", key)
				}
			}
		}
		if err := checkKeys(dec, of, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// fieldType returns the type of the field with exactly that name in JSON, or
// nil. The structs of a document name each field in a tag. Embedded structs are read as
// encoding/json reads them: their fields are fields of the outer struct, an outer field hides
// an inner one of the same name, and two inner ones of the same name hide each other.
func fieldType(t reflect.Type, name string) (of reflect.Type) {
	var embedded []reflect.Type
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case tag == name && tag != "" && tag != "-":
			return f.Type
		case f.Anonymous && f.Tag == "":
			embedded = append(embedded, f.Type)
		}
	}
	for _, e := range embedded {
		if e.Kind() == reflect.Pointer {
			e = e.Elem()
		}
		if e.Kind() != reflect.Struct {
			continue
		}
		if found := fieldType(e, name); found != nil && of != nil {
			return nil
		} else if found != nil {
			of = found
		}
	}
	return of
}
