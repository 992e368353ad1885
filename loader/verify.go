// SPDX-License-Identifier: Apache-2.0

// Package loader verifies bundles and runs them as instances of a back end.
//
// In: a reference to a bundle and a Policy. Out: a *Verified, which alone a
// back end takes: its bytes are held in sealed memory, so that what was
// verified is what is booted. Refused: everything that the policy does not
// allow, with an error that wraps ErrRefused; accidents on the way, such as too
// many open files, are errors that do not.
package loader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/trust"
)

// ErrRefused and ErrUnsigned are package signature's.
var (
	ErrRefused  = signature.ErrRefused
	ErrUnsigned = signature.ErrUnsigned
)

// ErrUntrusted says that nobody whom the policy trusts signed the bundle. It
// comes wrapped in ErrRefused.
var ErrUntrusted = errors.New("not trusted")

// Policy says which bundles are accepted. The zero value accepts none.
type Policy struct {
	// Trust says who may sign what.
	Trust *trust.Policy

	// AllowUnsigned accepts a bundle of which nothing but the digests was
	// checked. It is a developer's explicit wish for their own machine, and
	// excludes Trust and State.
	AllowUnsigned bool

	// ExpectName is the name that the bundle has to have; empty: nobody said.
	ExpectName string

	// State is what this host remembers; nil: what is older than what was seen is
	// not noticed.
	State *State
}

// Check is one thing that Verify looked at.
type Check struct {
	Object string `json:"object"` // what was looked at, for example "layer application/vnd.tenon.kernel.v1"
	Result string `json:"result"` // ok, warning, failed, ignored (a signature that does not count)
	Detail string `json:"detail"` // for people
}

// The results of a Check.
const (
	CheckOK      = "ok"
	CheckWarning = "warning"
	CheckFailed  = "failed"
	CheckIgnored = "ignored"
)

// Verified is a bundle that Verify accepted. Only Verify makes one; of the zero
// value, which has no manifest, Config.Resolve makes an error.
type Verified struct {
	manifest   *manifest.Manifest // nobody else has it
	digest     v1.Hash
	identity   string
	kernel     *signature.Kernel
	initramfs  *os.File
	statements [][]byte
}

// Verify opens the bundle (a reference as bundle.Open takes it), reads all that
// will be booted into sealed memory, checks every digest and every signature, and
// asks the policy: as many identities as it wants, of those that may sign for such
// a bundle, must have made a signature of each kind, the version must be new
// enough, and nothing of it revoked. No socket is opened, unless the bundle lies in
// a registry. report, which may be nil, is told each check as it is made.
func Verify(ctx context.Context, ref string, policy Policy, report func(Check)) (*Verified, error) {
	if report == nil {
		report = func(Check) {}
	}
	b, err := bundle.Open(ctx, ref)
	if err != nil {
		return nil, refuse(err)
	}
	defer b.Close()
	report(Check{"manifest", CheckOK, b.Digest.String()})
	v := &Verified{digest: b.Digest}
	if err := v.verify(ctx, b, policy, report); err != nil {
		return nil, errors.Join(fmt.Errorf("bundle %q: %w", ref, refuse(err)), v.Close())
	}
	return v, nil
}

// refuse wraps a verdict in ErrRefused. That a bundle could not be read, or that
// somebody gave up, is none.
func refuse(err error) error {
	for _, verdict := range []error{bundle.ErrInvalid, ErrUnsigned, ErrUntrusted, ErrRollback, trust.ErrName, trust.ErrRevoked, trust.ErrOld, revocation.ErrInvalid} {
		if errors.Is(err, verdict) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	return err
}

func (v *Verified) verify(ctx context.Context, b *bundle.Bundle, policy Policy, report func(Check)) error {
	if policy.Trust == nil && !policy.AllowUnsigned {
		return fmt.Errorf("%w: the policy trusts nobody", ErrUntrusted)
	}
	if policy.AllowUnsigned && (policy.Trust != nil || policy.State != nil) {
		return errors.New("a policy that trusts somebody, or remembers, and allows unsigned bundles contradicts itself")
	}
	if err := checkName(b, policy, report); err != nil {
		return err
	}
	v.manifest = b.Manifest.Clone()
	if policy.AllowUnsigned {
		report(Check{"signatures", CheckIgnored, "whoever made them: unsigned bundles are allowed"})
		var err error
		if v.statements, err = statements(ctx, b); err != nil {
			return err
		}
		return v.readLayers(ctx, b, report)
	}
	now := time.Now()
	list, err := openList(ctx, policy, now, report)
	if err != nil {
		return err
	}
	if err := checkAge(ctx, b, policy, report); err != nil {
		return err
	}
	j, err := newJury(b, policy.Trust, list, now, report)
	if err != nil {
		return err
	}
	for i := range signature.Kinds {
		kind := &signature.Kinds[i]
		// Only now: whom the policy does not trust cannot make us read gigabytes.
		if kind.OverImage && v.kernel == nil {
			if err := v.readLayers(ctx, b, report); err != nil {
				return err
			}
		}
		if err := j.judge(ctx, kind, v.kernel); err != nil {
			return err
		}
	}
	if policy.State != nil {
		if err := policy.State.accepted(ctx, b.Manifest); err != nil {
			return err
		}
	}
	v.identity, v.statements = strings.Join(j.names(), ", "), j.statements
	report(Check{"policy", CheckOK, fmt.Sprintf("%q may sign for %q", j.names(), b.Manifest.Name)})
	return nil
}

// checkName refuses another bundle than was asked for. Of an unsigned one, whoever made it
// chose the name, so that only a name that was said is compared.
func checkName(b *bundle.Bundle, policy Policy, report func(Check)) error {
	asked := trust.Asked{Repository: b.Repository(), Name: policy.ExpectName}
	p := policy.Trust
	if policy.AllowUnsigned {
		asked.Repository, p = "", &trust.Policy{}
	}
	if err := p.CheckName(asked, b.Manifest.Name); err != nil {
		report(Check{"name", CheckFailed, err.Error()})
		return err
	}
	if asked != (trust.Asked{}) {
		report(Check{"name", CheckOK, b.Manifest.Name})
	}
	return nil
}

// openList reads the revocation list that a policy wants, if it wants one. It
// counts from then on, whatever becomes of the bundle.
func openList(ctx context.Context, policy Policy, now time.Time, report func(Check)) (l *revocation.List, err error) {
	r := policy.Trust.Revocation
	if r == nil {
		return nil, nil
	}
	open := func(before trust.Revocations) (*revocation.List, error) {
		return revocation.Open(r.List, &r.Signer, before, r.MaxAge, now)
	}
	if policy.State == nil {
		l, err = open(nil)
	} else {
		l, err = policy.State.openList(ctx, open)
	}
	const object = "revocation list"
	if err != nil {
		report(Check{object, CheckFailed, err.Error()})
		return nil, err
	}
	report(Check{object, CheckOK, fmt.Sprintf("number %d with %d entries, issued on %s, by %q", l.Number, len(l.Entries), l.Issued.Format(time.RFC3339), r.Signer.Name)})
	return l, nil
}

// checkAge refuses versions that are too old.
func checkAge(ctx context.Context, b *bundle.Bundle, policy Policy, report func(Check)) error {
	rule := policy.Trust.Rule(b.Manifest.Name)
	if err := rule.CheckVersion(b.Manifest.BundleVersion); err != nil {
		report(Check{"version", CheckFailed, err.Error()})
		return err
	}
	if policy.State == nil {
		if policy.Trust.Revocation != nil || rule.MinimumVersion != "" {
			report(Check{"state", CheckWarning, "no directory to remember in: older versions and lists than were seen are not noticed"})
		}
		return nil
	}
	if err := policy.State.checkVersion(ctx, b.Manifest); err != nil {
		report(Check{"state", CheckFailed, err.Error()})
		return err
	}
	report(Check{"state", CheckOK, fmt.Sprintf("version %q is not older than what was seen, and neither is the revocation list, if there is one", b.Manifest.BundleVersion)})
	return nil
}

// statements returns the good signatures of a bundle's statement, whoever made them.
func statements(ctx context.Context, b *bundle.Bundle) ([][]byte, error) {
	signatures, err := signature.KindOf(bundle.StatementType).Read(ctx, b, nil, nil)
	var out [][]byte
	for _, s := range signatures {
		if s.Err == nil {
			out = append(out, s.Data)
		}
	}
	return out, err
}

// readLayers checks the digests of all layers, and keeps those that are booted.
func (v *Verified) readLayers(ctx context.Context, b *bundle.Bundle, report func(Check)) error {
	var config []byte
	for _, mt := range b.Layers() {
		var err error
		switch mt {
		case bundle.KernelType:
			v.kernel, err = signature.OpenKernel(ctx, b)
		case bundle.ConfigType:
			config, err = b.ReadLayer(mt)
		case bundle.InitramfsType:
			if got := b.LayerDigest(mt).String(); got != b.Manifest.Initramfs.Digest {
				err = fmt.Errorf("%w: the initramfs layer is %s, the manifest says %s", bundle.ErrInvalid, got, b.Manifest.Initramfs.Digest)
			} else {
				v.initramfs, err = b.SealedLayer(ctx, mt, nil)
			}
		default:
			err = b.CheckLayer(ctx, mt)
		}
		object := "layer " + string(mt)
		if err != nil {
			report(Check{object, CheckFailed, err.Error()})
			return err
		}
		report(Check{object, CheckOK, b.LayerDigest(mt).String()})
	}
	if !v.Sealed() {
		return nil
	}
	s, err := seal.Of(v.initramfs, b.Size(bundle.InitramfsType))
	if err == nil {
		err = seal.Check(v.kernel, config, b.Manifest.CommandLine, s)
	}
	if err != nil {
		report(Check{"seal", CheckFailed, err.Error()})
		return fmt.Errorf("%w: %w", bundle.ErrInvalid, err)
	}
	report(Check{"seal", CheckOK, fmt.Sprintf("the kernel unpacks this initramfs alone, %s, and lets nothing else in", s.Digest)})
	return nil
}

// Manifest returns a copy of the bundle's manifest, nil of the zero Verified.
func (v *Verified) Manifest() *manifest.Manifest {
	if v.manifest == nil {
		return nil
	}
	return v.manifest.Clone()
}

// Sealed says whether the kernel's signature covers the initramfs and the command line.
func (v *Verified) Sealed() bool { return v.manifest != nil && v.manifest.Initramfs.Sealed }

// Digest returns the bundle's identity.
func (v *Verified) Digest() v1.Hash { return v.digest }

// Identity returns the names of the identities that signed it, with commas between
// them, empty when unsigned bundles were allowed.
func (v *Verified) Identity() string { return v.identity }

// Kernel returns the bzImage in sealed memory. The file belongs to v.
func (v *Verified) Kernel() *os.File { return v.kernel.File }

// Initramfs returns the initramfs in sealed memory. The file belongs to v.
func (v *Verified) Initramfs() *os.File { return v.initramfs }

// Statements returns the signatures of the bundle's statement, PKCS#7 in DER, of those
// whom the policy trusts, or of anybody when unsigned bundles were allowed: the host's
// kernel makes up its own mind, and may trust one of several.
func (v *Verified) Statements() [][]byte {
	return v.statements
}

// Close frees the memory. It may be called again, and does nothing then.
func (v *Verified) Close() error {
	var errs []error
	if v.kernel != nil {
		errs = append(errs, v.kernel.Close())
	}
	if v.initramfs != nil {
		errs = append(errs, v.initramfs.Close())
	}
	return errors.Join(slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, os.ErrClosed) })...)
}
