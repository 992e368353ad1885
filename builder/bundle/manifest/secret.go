// SPDX-License-Identifier: Apache-2.0

package manifest

import "strings"

// Mask is what is shown in the place of a secret value.
const Mask = "********"

// Masked returns a copy of the manifest that can be shown: the values of secret
// parameters are Mask, the default ones and those of the image's environment.
func (m *Manifest) Masked() *Manifest {
	out := m.Clone()
	for i := range out.Parameters {
		p := &out.Parameters[i]
		if !p.Secret {
			continue
		}
		if p.Default != nil {
			mask := Mask
			p.Default = &mask
		}
		for j, e := range out.App.Env {
			if strings.HasPrefix(e, p.Name+"=") {
				out.App.Env[j] = p.Name + "=" + Mask
			}
		}
	}
	return out
}
