// SPDX-License-Identifier: Apache-2.0

package manifest

import "slices"

// Clone returns a copy that shares nothing with m, so that whoever has the one cannot
// change the other.
func (m *Manifest) Clone() *Manifest {
	out := *m
	out.App = m.App.clone()
	out.Parameters = slices.Clone(m.Parameters)
	for i, p := range out.Parameters {
		if p.Default != nil {
			value := *p.Default
			out.Parameters[i].Default = &value
		}
	}
	out.Claims.Devices = slices.Clone(m.Claims.Devices)
	return &out
}

func (a App) clone() App {
	for _, list := range []*[]string{&a.Entrypoint, &a.Cmd, &a.Env, &a.Ports, &a.Volumes} {
		*list = slices.Clone(*list)
	}
	if a.Health != nil {
		health := *a.Health
		health.Exec = slices.Clone(health.Exec)
		a.Health = &health
	}
	return a
}
