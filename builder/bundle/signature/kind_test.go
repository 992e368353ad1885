// SPDX-License-Identifier: Apache-2.0

package signature

import (
	"slices"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/signer/request"
	"github.com/tenon-build/tenon/signer/statement"
)

// A new kind stands in three lists: the format's, this package's, and that of what is
// signed in two phases.
func TestKinds(t *testing.T) {
	var types, names, asked []string
	for _, k := range Kinds {
		types, names = append(types, k.Type), append(names, k.Name)
		if KindOf(k.Type).Name != k.Name {
			t.Errorf("%s is found as %s", k.Name, KindOf(k.Type).Name)
		}
	}
	if want := slices.Sorted(slices.Values(bundle.SignatureTypes)); !slices.Equal(slices.Sorted(slices.Values(types)), want) {
		t.Errorf("kinds %q, the format has %q", types, want)
	}
	r, err := request.New(request.Subject{Name: "web", Digest: "sha256:" + strings.Repeat("0", 64), Statement: statement.Statement{Target: "qemu", Size: 1}})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range slices.Backward(r.Items) { // the order in which keys are asked
		asked = append(asked, i.Kind)
	}
	if !slices.Equal(asked, names) {
		t.Errorf("kinds %q, a request asks for %q", names, asked)
	}
	if KindOf("application/x") != nil {
		t.Error("anything is a signature")
	}
}
