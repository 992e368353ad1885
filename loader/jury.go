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
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/sigstore"
	"github.com/tenon-build/tenon/signer/trust"
)

// jury finds the identities that made a signature of each kind.
type jury struct {
	bundle  *bundle.Bundle
	all     []trust.Identity // that may sign for the bundle
	running []trust.Identity // that made one of each kind so far
	votes   []votes          // of each kind so far
	wanted  int              // identities with keys of their own
	why     []string         // the others did not
	keys    []crypto.PublicKey
	revoked trust.Revocations
	now     time.Time
	report  func(Check)

	statements [][]byte // that counted
}

// votes are the keys that made good signatures of one kind, by fingerprint, of
// each identity by name.
type votes map[string][]string

func newJury(b *bundle.Bundle, policy *trust.Policy, list *revocation.List, now time.Time, report func(Check)) (*jury, error) {
	all, why := policy.For(describe(b))
	j := &jury{bundle: b, all: all, running: all, why: why, wanted: policy.Rule(b.Manifest.Name).Threshold, now: now, report: report}
	if list != nil {
		j.revoked = list.Entries
	}
	if err := j.revoked.Check(trust.OfBundle(b.Digest.String())); err != nil {
		return nil, err
	}
	switch {
	case len(all) == 0 && len(why) == 0:
		return nil, fmt.Errorf("%w: the policy lets nobody sign for %q", ErrUntrusted, b.Manifest.Name)
	case len(all) < j.wanted:
		return nil, j.untrusted(len(all), "may")
	}
	for _, i := range j.all {
		if i.Key != nil {
			j.keys = append(j.keys, i.Key)
		}
	}
	for _, r := range b.Referrers() {
		if signature.KindOf(r.Type) != nil {
			return j, nil
		}
	}
	return nil, ErrUnsigned
}

// describe is what a bundle says of itself.
func describe(b *bundle.Bundle) trust.Bundle {
	m := b.Manifest
	d := trust.Bundle{Name: m.Name, CPUs: m.Claims.CPUs.Max, Memory: m.Claims.Memory.Max}
	for _, device := range m.Claims.Devices {
		d.Devices = append(d.Devices, device.Kind)
	}
	return d
}

// judge judges every signature of a kind, each once, and takes those out of the
// running who made no good one. kernel is nil for kinds that need none.
func (j *jury) judge(ctx context.Context, kind *signature.Kind, kernel *signature.Kernel) error {
	signatures, err := kind.Read(ctx, j.bundle, kernel, j.keys)
	if err != nil {
		return err
	}
	made := votes{}
	reasons := map[string][]string{} // why not, by name of an identity
	for _, s := range signatures {
		trusted, revoked := "", error(nil)
		for _, i := range j.all {
			err := s.Err
			if err == nil {
				err = i.CheckSigner(s.Signer, j.revoked, j.now)
			}
			if err != nil {
				reasons[i.Name] = append(reasons[i.Name], fmt.Sprintf("%s: %s", s.Referrer, err))
				if errors.Is(err, trust.ErrRevoked) {
					revoked = err
				}
				continue
			}
			made[i.Name], trusted = append(made[i.Name], signer.Fingerprint(s.Signer.Key)), i.Name
			if late := i.CheckGrace(s.Signer, j.now); late != nil {
				j.report(Check{s.Object(), CheckWarning, fmt.Sprintf("%s: it counts for %q in the grace of %s", late, i.Name, i.Grace)})
			}
		}
		j.report(reportOf(&s, trusted, revoked))
		if trusted != "" && kind.Type == bundle.StatementType {
			j.statements = append(j.statements, s.Data)
		}
	}
	j.votes = append(j.votes, made)
	var running []trust.Identity
	for _, i := range j.running {
		switch {
		case len(made[i.Name]) > 0:
			running = append(running, i)
		case len(signatures) == 0:
			j.why = append(j.why, fmt.Sprintf("%q made no %s signature", i.Name, kind.Name))
		default:
			j.why = append(j.why, fmt.Sprintf("no %s signature of %q: %s", kind.Name, i.Name, few(reasons[i.Name])))
		}
	}
	j.running = running
	for _, v := range j.votes {
		var keys [][]string
		for _, i := range j.running {
			keys = append(keys, v[i.Name])
		}
		if n := trust.Distinct(keys); n < j.wanted {
			return j.untrusted(n, "did")
		}
	}
	return nil
}

// untrusted says why too few signed: n did, or may.
func (j *jury) untrusted(n int, verb string) error {
	why := few(j.why)
	if j.wanted > 1 {
		why = strings.TrimSuffix(fmt.Sprintf("the policy wants %d identities with keys of their own to sign for %q, %d %s: %s", j.wanted, j.bundle.Manifest.Name, n, verb, why), ": ")
	}
	return fmt.Errorf("%w: %s", ErrUntrusted, why)
}

// names of those who made a signature of each kind.
func (j *jury) names() []string {
	var names []string
	for _, i := range j.running {
		names = append(names, i.Name)
	}
	return names
}

// few joins reasons, of which strangers can make many.
func few(reasons []string) string {
	const most = 4
	if len(reasons) > most {
		reasons = append(reasons[:most:most], fmt.Sprintf("and %d more", len(reasons)-most))
	}
	return strings.Join(reasons, "; ")
}

// reportOf reports one signature: failed when it is not one of this bundle or its
// signer was revoked, ignored when nobody who is trusted made it, or a key that is
// not here may have.
func reportOf(s *signature.Signature, trusted string, revoked error) Check {
	switch {
	case errors.Is(s.Err, sigstore.ErrKey): // somebody's whose key is not here, for all that can be told
		return Check{s.Object(), CheckIgnored, s.Err.Error()}
	case s.Err != nil:
		return Check{s.Object(), CheckFailed, s.Err.Error()}
	case trusted == "" && revoked != nil:
		return Check{s.Object(), CheckFailed, revoked.Error()}
	case trusted == "":
		return Check{s.Object(), CheckIgnored, fmt.Sprintf("by %s, whom the policy does not trust", s.Signer)}
	}
	return Check{s.Object(), CheckOK, fmt.Sprintf("by %s, trusted as %q", s.Signer, trusted)}
}
