// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// sign compares the three signatures that 'tenon sign' makes with the one of sbsign over the
// same kernel.
func sign(j *job) []series {
	small := incompressible(j, "small", 3)
	kernel := e2e.LayerFile(j, small, bundle.KernelType)
	keys, dir := e2e.Keys(j), j.TempDir()
	chain, err := os.ReadFile(keys + "/signing.crt")
	if err != nil {
		j.Fatal(err)
	}
	leaf, _ := pem.Decode(chain) // sbsign takes one certificate
	if leaf == nil {
		j.Fatal("no certificate in " + keys + "/signing.crt")
	}
	cert := e2e.WriteFile(j, filepath.Join(dir, "leaf.crt"), pem.EncodeToMemory(leaf))
	return []series{{
		what:   fmt.Sprintf("sign a kernel of %d MiB", size(j, kernel)>>20),
		unit:   milliseconds,
		rounds: 11,
		subject: side{"tenon sign, three signatures", nil, func(t e2e.T) sample {
			return took(t, e2e.Command(t, e2e.Program(t, "tenon"), "sign", "--key", keys+"/signing.key", small))
		}},
		peers: []side{{"sbsign, one signature", []string{"sbsign"}, func(t e2e.T) sample {
			return took(t, e2e.Command(t, "sbsign", "--key", keys+"/signing.key", "--cert", cert, "--output", filepath.Join(dir, "signed"), kernel))
		}}},
	}}
}
