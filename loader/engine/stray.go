// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
)

// strays are the IDs of what back ends have that this directory holds nothing for: it is
// another one's, or the directory was lost. Under the directory's lock, none is missed and
// none is one that just starts or ends.
func (e *Engine) strays() ([]string, error) {
	held, err := e.Host().Held()
	if err != nil {
		return nil, err
	}
	var strays []string
	for _, b := range e.Backends {
		s, survives := b.(loader.Survivor)
		if !survives {
			continue
		}
		ids, err := s.List()
		if err != nil {
			return nil, fmt.Errorf("what %s has: %w", b.Name(), err)
		}
		strays = append(strays, slices.DeleteFunc(ids, func(id string) bool {
			return slices.ContainsFunc(held, func(h alloc.Holding) bool { return h.Plan.ID == id })
		})...)
	}
	return strays, nil
}

func (e *Engine) reportStrays() {
	strays, err := e.strays()
	if err != nil {
		e.Log.Warn("instances that are not noted here were not looked for", "why", err)
	}
	for _, id := range strays {
		e.Log.Warn("an instance is not noted here: 'mortise rm --force ID' ends it, unless it is another --root's", "ID", id)
	}
}

// discardStray ends a stray; where there is none of this ID, it returns notFound.
func (e *Engine) discardStray(ctx context.Context, id string, notFound error) error {
	strays, err := e.strays()
	if err != nil {
		return fmt.Errorf("%w; %w", notFound, err)
	}
	if !slices.Contains(strays, id) {
		return notFound
	}
	if err := e.handBack(ctx, id, killTimeout); err != nil {
		return fmt.Errorf("instance %q: %w", id, err)
	}
	return nil
}
