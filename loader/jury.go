// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/trust"
)

// jury finds the identities that made a signature of each kind.
type jury struct {
	bundle  *bundle.Bundle
	all     []trust.Identity // that may sign for the bundle
	running []trust.Identity // that made one of each kind so far
	why     []string         // the others did not
	keys    []crypto.PublicKey
	now     time.Time
	report  func(Check)
}

func newJury(b *bundle.Bundle, policy *trust.Policy, report func(Check)) (*jury, error) {
	j := &jury{bundle: b, all: policy.For(b.Manifest.Name), now: time.Now(), report: report}
	if len(j.all) == 0 {
		return nil, fmt.Errorf("%w: the policy lets nobody sign for %q", ErrUntrusted, b.Manifest.Name)
	}
	j.running = j.all
	for _, i := range j.all {
		if i.Key != nil {
			j.keys = append(j.keys, i.Key)
		}
	}
	for _, r := range b.Referrers() {
		for _, kind := range Kinds {
			if r.Type == kind.Type {
				return j, nil
			}
		}
	}
	return nil, ErrUnsigned
}

// judge judges every signature of a kind, each once, and takes those out of the
// running who made no good one. kernel is nil for kinds that need none.
func (j *jury) judge(ctx context.Context, kind Kind, kernel *Kernel) error {
	signatures, err := signaturesOf(ctx, kind, newSubject(j.bundle, kernel, j.keys))
	if err != nil {
		return err
	}
	made := map[string]bool{}        // by name of an identity
	reasons := map[string][]string{} // why not
	for _, s := range signatures {
		trusted := ""
		for _, i := range j.all {
			err := s.Err
			if err == nil {
				err = i.Trusts(s.Signer, j.now)
			}
			if err == nil {
				made[i.Name], trusted = true, i.Name
				continue
			}
			reasons[i.Name] = append(reasons[i.Name], fmt.Sprintf("%s: %s", s.Referrer, err))
		}
		j.report(s.check(trusted))
	}
	var running []trust.Identity
	for _, i := range j.running {
		switch {
		case made[i.Name]:
			running = append(running, i)
		case len(signatures) == 0:
			j.why = append(j.why, fmt.Sprintf("%q made no %s signature", i.Name, kind.Name))
		default:
			j.why = append(j.why, fmt.Sprintf("no %s signature of %q: %s", kind.Name, i.Name, few(reasons[i.Name])))
		}
	}
	if j.running = running; len(running) == 0 {
		return fmt.Errorf("%w: %s", ErrUntrusted, few(j.why))
	}
	return nil
}

// few joins reasons, of which strangers can make many.
func few(reasons []string) string {
	const most = 4
	if len(reasons) > most {
		reasons = append(reasons[:most:most], fmt.Sprintf("and %d more", len(reasons)-most))
	}
	return strings.Join(reasons, "; ")
}

// check reports one signature: failed when it is not one of this bundle, ignored
// when nobody who is trusted made it, or a key that is not here may have.
func (s *Signature) check(trusted string) Check {
	object := fmt.Sprintf("%s signature %s", s.Kind.Name, s.Referrer)
	switch {
	case errors.Is(s.Err, sigstore.ErrKey): // somebody's whose key is not here, for all that can be told
		return Check{object, CheckIgnored, s.Err.Error()}
	case s.Err != nil:
		return Check{object, CheckFailed, s.Err.Error()}
	case trusted == "":
		return Check{object, CheckIgnored, fmt.Sprintf("by %s, whom the policy does not trust", Name(s.Signer))}
	}
	return Check{object, CheckOK, fmt.Sprintf("by %s, trusted as %q", Name(s.Signer), trusted)}
}
