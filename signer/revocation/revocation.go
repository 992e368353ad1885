// SPDX-License-Identifier: Apache-2.0

// Package revocation makes and reads signed lists of what is trusted no more:
// keys, certificates and bundles.
//
// In: a List and a key, or the bytes of such a file and who may have signed it.
// Out: a file that people can read, the list as JSON and behind it its signature,
// a detached PKCS#7 in PEM (`openssl cms -verify` checks it); or the list. Refused,
// with an error that wraps ErrInvalid: a list that was not signed, or by somebody
// else or by somebody who was revoked, one that is too old, and every byte that
// this package would have written in another way. Whether a newer list was seen,
// the caller knows.
package revocation

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/pkcs7"
	"github.com/tenon-build/tenon/signer/trust"
)

// Version is the format version that this package reads and writes.
const Version = 1

// MaxSize is the largest file, in bytes.
const MaxSize = 1 << 20

// ErrInvalid says that a file is not a signed list that may be used.
var ErrInvalid = errors.New("invalid revocation list")

// ErrIssue says that nobody would take a list, or nobody that this key signs.
var ErrIssue = errors.New("the list cannot be issued")

// List is what is trusted no more. Times are UTC, in whole seconds.
type List struct {
	Version int               `json:"version"`
	Number  int64             `json:"number"` // of each list one more than of the one before
	Issued  time.Time         `json:"issued"`
	Expires time.Time         `json:"expires"` // the next list is there before
	Entries trust.Revocations `json:"entries"`
}

// Next returns the list that follows l, nil for the first one, with more entries.
func (l *List) Next(now time.Time, valid time.Duration, more ...trust.Revoked) *List {
	now = now.UTC().Truncate(time.Second)
	next := &List{Version: Version, Number: 1, Issued: now, Expires: now.Add(valid).Truncate(time.Second), Entries: trust.Revocations{}}
	if l != nil {
		next.Number, next.Entries = l.Number+1, append(next.Entries, l.Entries...)
	}
	for _, e := range more {
		e.Date = now
		next.Entries = append(next.Entries, e)
	}
	return next
}

// skew is how far the clocks of who signs and who checks may differ.
const skew = 5 * time.Minute

// checkAge says whether a list may be used at a time, at most maxAge after it was
// issued.
func (l *List) checkAge(now time.Time, maxAge time.Duration) error {
	switch {
	case l.Issued.After(now.Add(skew)):
		return fmt.Errorf("list %d is of the future: issued on %s", l.Number, l.Issued.Format(time.RFC3339))
	case now.After(l.Expires):
		return fmt.Errorf("list %d expired on %s", l.Number, l.Expires.Format(time.RFC3339))
	case now.Sub(l.Issued) > maxAge:
		return fmt.Errorf("list %d is older than %s: issued on %s", l.Number, maxAge, l.Issued.Format(time.RFC3339))
	}
	return nil
}

func (l *List) check() error {
	switch {
	case l.Version != Version:
		return fmt.Errorf("version %d: this program reads version %d", l.Version, Version)
	case l.Number < 1:
		return fmt.Errorf("number %d: the first list is 1", l.Number)
	case !l.Expires.After(l.Issued):
		return errors.New("it expires before it is issued")
	}
	seen := map[string]bool{}
	for _, e := range l.Entries {
		sum, ok := strings.CutPrefix(e.Digest, "sha256:")
		b, err := hex.DecodeString(sum)
		switch {
		case e.Kind != trust.RevokedKey && e.Kind != trust.RevokedCertificate && e.Kind != trust.RevokedBundle:
			return fmt.Errorf("unknown kind %q", e.Kind)
		case !ok || err != nil || len(b) != sha256.Size || strings.ToLower(sum) != sum:
			return fmt.Errorf("%s: %q is not a sha256 digest", e.Kind, e.Digest)
		case e.Reason == "" || len(e.Reason) > 200 || strings.ContainsFunc(e.Reason, func(r rune) bool { return !unicode.IsPrint(r) }):
			return fmt.Errorf("%s %s: reason: needs 1 to 200 printable bytes", e.Kind, e.Digest)
		case seen[e.Kind+e.Digest]:
			return fmt.Errorf("%s %s is on the list already", e.Kind, e.Digest)
		}
		seen[e.Kind+e.Digest] = true
	}
	return nil
}

const pemType = "PKCS7"

// Sign writes a list out, signed. The same list and key make the same bytes. A
// list that revokes the key, or who issued to it, would refuse itself.
func Sign(key *signer.Key, l *List) ([]byte, error) {
	text, err := l.encode()
	if err == nil {
		self := trust.Identity{Key: key.Public()}
		err = self.CheckSigner(&signer.Signer{Key: key.Public(), Chain: key.Chain}, l.Entries, l.Issued)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIssue, err)
	}
	p7, err := pkcs7.SignDetached(key, text)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	data := join(text, p7)
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrIssue, MaxSize)
	}
	return data, nil
}

func (l *List) encode() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(l, "", "  ")
	return append(text, '\n'), err
}

func join(text, p7 []byte) []byte {
	return append(bytes.Clone(text), pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: p7})...)
}

// Open reads a list that the identity signed, and that may be used at a time, at
// most maxAge after it was issued. Whoever was revoked before cannot sign it, as he
// would leave himself out.
func Open(data []byte, by *trust.Identity, before trust.Revocations, maxAge time.Duration, now time.Time) (*List, error) {
	l, s, err := parse(data)
	if err == nil {
		err = by.CheckSigner(s, slices.Concat(l.Entries, before), now)
	}
	if err == nil {
		err = l.checkAge(now, maxAge)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return l, nil
}

// Parse reads a list, however old, and says who signed it, as far as cryptography
// goes.
func Parse(data []byte) (*List, *signer.Signer, error) {
	l, s, err := parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return l, s, nil
}

func parse(data []byte) (*List, *signer.Signer, error) {
	if len(data) > MaxSize {
		return nil, nil, fmt.Errorf("larger than %d bytes", MaxSize)
	}
	// A line break in JSON's strings is an escape, so that there is one such place.
	end := bytes.Index(data, []byte("\n-----BEGIN "+pemType+"-----\n")) + 1
	if end == 0 {
		return nil, nil, errors.New("it is not signed")
	}
	block, _ := pem.Decode(data[end:])
	if block == nil {
		return nil, nil, errors.New("its signature is not in PEM form")
	}
	text := data[:end]
	s, err := pkcs7.VerifyDetached(block.Bytes, text)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(join(text, block.Bytes), data) {
		return nil, nil, errors.New("there is more than the list and one signature")
	}
	l, err := decode(text)
	return l, s, err
}

// decode reads the JSON part, and takes no other bytes than encode makes: no field
// that is unknown, occurs twice or is in another case.
func decode(text []byte) (*List, error) {
	var l List
	if err := json.Unmarshal(text, &l); err != nil {
		return nil, err
	}
	again, err := l.encode()
	if err == nil && !bytes.Equal(again, text) {
		err = errors.New("it is not written as this program writes it")
	}
	return &l, err
}
