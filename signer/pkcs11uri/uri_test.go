// SPDX-License-Identifier: Apache-2.0

package pkcs11uri

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	slot := uint(7)
	for text, want := range map[string]URI{
		"pkcs11:object=x":            {Object: "x"},
		"//object=x":                 {Object: "x"},
		"object=a%20b%3b%3f;token=t": {Object: "a b;?", Token: "t"},
		"id=%00%ff%41":               {ID: []byte{0, 0xff, 'A'}},
		"pkcs11:model=m;manufacturer=A%2fB;serial=01;token=t;slot-id=7;id=%01;object=x;type=private": {
			Model: "m", Manufacturer: "A/B", Serial: "01", Token: "t", Slot: &slot, ID: []byte{1}, Object: "x"},
		"object=x?module-path=/a/b.so&pin-source=file:/run/pin": {Object: "x", Module: "/a/b.so", PINSource: "/run/pin"},
		"object=x?module-name=softhsm2&pin-source=/run/p%20n":   {Object: "x", ModuleName: "softhsm2", PINSource: "/run/p n"},
		"object=x?pin-source=file:///run/pin":                   {Object: "x", PINSource: "/run/pin"},
		"object=a+b":                                            {Object: "a+b"},
	} {
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "names no key",
		"token=secret":                  "names no key",
		"object=":                       `attribute "object": no value`,
		"object":                        `attribute "object": no value`,
		"object=secret%2":               `attribute "object": no value, or one that is not percent-encoded`,
		"object=x;object=secret":        `attribute "object" occurs twice`,
		"object=x;vendor=secret":        `attribute "vendor": unknown there`,
		"object=x;Token=secret":         `attribute "Token": unknown there`,
		"object=x;pin-source=/secret":   `attribute "pin-source": unknown there`,
		"object=x?token=secret":         `attribute "token": unknown there`,
		"object=x;type=cert":            `attribute "type": only private keys sign`,
		"object=x;slot-id=secret":       `attribute "slot-id": not a number`,
		"object=x?module-name=./secret": `attribute "module-name": a path`,
		"object=x?pin-source=secret":    `attribute "pin-source": not file: and an absolute path`,
		"object=x?pin-source=|secret":   `attribute "pin-source": not file: and an absolute path`,
		"object=x?pin-value=secret":     ErrPIN.Error(),
		"object=x;PIN-value=secret":     ErrPIN.Error(),
	} {
		_, err := Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
		if pin := strings.Contains(strings.ToLower(text), "pin-value"); errors.Is(err, ErrPIN) != pin {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
