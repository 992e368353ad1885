// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"reflect"
	"testing"
)

// fill sets every field, slice and pointer below v to something.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Bool:
		v.SetBool(true)
	}
}

// shared lists what two values have in common that can be changed.
func shared(path string, a, b reflect.Value) (out []string) {
	switch a.Kind() {
	case reflect.Struct:
		for i := range a.NumField() {
			out = append(out, shared(path+"."+a.Type().Field(i).Name, a.Field(i), b.Field(i))...)
		}
	case reflect.Slice, reflect.Pointer:
		if a.Pointer() == b.Pointer() {
			return []string{path}
		}
		if a.Kind() == reflect.Pointer {
			return shared(path, a.Elem(), b.Elem())
		}
		return shared(path+"[0]", a.Index(0), b.Index(0))
	case reflect.Map, reflect.Interface, reflect.Chan, reflect.Func:
		return []string{path + ", of a kind that this test does not know"}
	}
	return out
}

func TestClone(t *testing.T) {
	var m Manifest
	fill(reflect.ValueOf(&m).Elem())
	c := m.Clone()
	if !reflect.DeepEqual(&m, c) {
		t.Errorf("got %+v, want %+v", c, m)
	}
	if s := shared("m", reflect.ValueOf(m), reflect.ValueOf(*c)); s != nil {
		t.Errorf("shared: %v", s)
	}
	if s := shared("m", reflect.ValueOf(m), reflect.ValueOf(m)); len(s) != 8 {
		t.Errorf("a manifest shares %v with itself", s)
	}
}
