// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	missing := t.TempDir() + "/missing"
	for _, test := range []struct {
		name, args string
		code       int
		want       string
	}{
		{"no command", "", 2, "no command given"},
		{"unknown command", "build x", 2, `unknown command "build" for "mortise"`},
		{"nobody trusted", "verify x", 2, "nothing says whom to trust"},
		{"two who are trusted", "verify x --cert a --policy b", 2, "[cert policy] were all set"},
		{"no policy", "verify x --policy " + missing, 1, "reading policy: open " + missing + ": no such file"},
		{"no bundle", "verify " + missing + " --policy /dev/null", 1, "/dev/null: not a regular file"},
	} {
		var stdout, stderr bytes.Buffer
		a := newApp(&stdout, &stderr)
		code := a.Run(t.Context(), newRootCmd(a), strings.Fields(test.args))
		line, _, _ := strings.Cut(stderr.String(), "\n")
		if code != test.code || !strings.HasPrefix(line, "mortise: error: ") || !strings.Contains(line, test.want) {
			t.Errorf("%s: %d, %s", test.name, code, stderr.String())
		}
	}
}
