// SPDX-License-Identifier: Apache-2.0

// Package stricttoml decodes TOML of which every key is known.
//
// In: a document whole. Out: a struct whose fields are tagged with keys in lower case.
// Refused: keys that are unknown or in another case, with the line.
package stricttoml

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Decode decodes a document whose keys are all known, and in lower case. The error
// names the line.
func Decode(data []byte, into any) error {
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(into); err != nil {
		return explain(err)
	}
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return explain(err)
	}
	return checkCase(tree)
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
		return fmt.Errorf("line %d: unknown key %q", line, strings.Join(strict.Errors[0].Key(), "."))
	}
	var decode *toml.DecodeError
	if errors.As(err, &decode) {
		line, _ := decode.Position()
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	return err
}
