// SPDX-License-Identifier: Apache-2.0

package recipes

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocs holds docs/recipes.md to the code: every key is there.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	var keys func(reflect.Type)
	keys = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[file]().PkgPath() {
			return
		}
		for i := range typ.NumField() {
			key := typ.Field(i).Tag.Get("toml")
			if !strings.Contains(string(doc), key) {
				t.Errorf("docs/recipes.md says nothing of %q", key)
			}
			keys(typ.Field(i).Type)
		}
	}
	keys(reflect.TypeFor[file]())
}
