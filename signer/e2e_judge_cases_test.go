// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/signer/modsig"
	"github.com/tenon-build/tenon/signer/pkcs7"
	"github.com/tenon-build/tenon/signer/trust"
	"github.com/tenon-build/tenon/testdata/debian"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/judge"
	"github.com/tenon-build/tenon/testdata/judge/uefi"
)

// authority is a CA. The one in testdata is what both kernels trust.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func testCA(t *testing.T) *authority {
	t.Helper()
	key := debian.Authority(t)
	return &authority{key.Chain[0], key.Signer}
}

func (a *authority) identity() *trust.Identity {
	return &trust.Identity{Name: "test", Certificates: []*x509.Certificate{a.cert}, Bundles: []string{"*"}}
}

// asKey is what an authority should never do.
func (a *authority) asKey() *signer.Key {
	return &signer.Key{Signer: a.key, Chain: []*x509.Certificate{a.cert}}
}

// issue makes a certificate for a key; without an authority it signs itself.
func (a *authority) issue(t *testing.T, key crypto.Signer, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: e2e.Must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))), Subject: pkix.Name{CommonName: "test signing"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		SubjectKeyId: e2e.Must(cryptoutils.SKID(key.Public())),
	}
	if edit != nil {
		edit(c)
	}
	parent, by := c, key
	if a != nil {
		parent, by = a.cert, a.key
	}
	return e2e.Must(x509.ParseCertificate(e2e.Must(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by))))
}

func asAuthority(c *x509.Certificate) {
	c.Subject.CommonName, c.IsCA, c.KeyUsage, c.ExtKeyUsage = "another CA", true, x509.KeyUsageCertSign, nil
}

// rsaKey takes the time that it takes: RSA-2048 is the default of these tests.
func rsaKey(bits int) *rsa.PrivateKey { return e2e.Must(rsa.GenerateKey(rand.Reader, bits)) }

// newKey is a key with a leaf of the test CA.
func newKey(t *testing.T, edit func(*x509.Certificate)) *signer.Key {
	t.Helper()
	return leafOf(t, testCA(t), rsaKey(2048), edit)
}

func leafOf(t *testing.T, a *authority, key crypto.Signer, edit func(*x509.Certificate)) *signer.Key {
	t.Helper()
	return &signer.Key{Signer: key, Chain: []*x509.Certificate{a.issue(t, key, edit)}}
}

func newAuthority(t *testing.T, parent *authority) *authority {
	t.Helper()
	key := rsaKey(2048)
	return &authority{parent.issue(t, key, asAuthority), key}
}

// named keys are made once, as lists of revocations name them too.
func named(t *testing.T, name string) *signer.Key {
	t.Helper()
	if namedKeys[name] == nil {
		namedKeys[name] = newKey(t, nil)
	}
	return namedKeys[name]
}

var namedKeys = map[string]*signer.Key{}

func parsePE(t *testing.T, image []byte) *authenticode.Image {
	t.Helper()
	return e2e.Must(authenticode.Parse(bytes.NewReader(image), int64(len(image))))
}

func peSignature(t *testing.T, image []byte, key *signer.Key) []byte {
	t.Helper()
	return e2e.Must(authenticode.Sign(key, e2e.Must(parsePE(t, image).Digest(t.Context()))))
}

func attach(t *testing.T, image []byte, signatures ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := parsePE(t, image).Attach(&b, signatures...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unsigned(t *testing.T, image []byte) []byte { return attach(t, image) }

// load is the case of an image.
func load(t *testing.T, name string, image []byte, tenon, own, debian string) judged {
	t.Helper()
	return judged{judge.Step{Name: name, Do: judge.Load, Edits: judge.Diff(probeKernel(t), image), Size: len(image)}, tenon, own, debian}
}

// imageCases are the signed images that both kernels are asked for. What a key of
// another kind signed is one more line.
func imageCases(t *testing.T) []judged {
	base, ca := probeKernel(t), testCA(t)
	foreign := leafOf(t, newAuthority(t, nil), rsaKey(2048), nil)
	signed := func(keys ...*signer.Key) []byte {
		var all [][]byte
		for _, k := range keys {
			all = append(all, peSignature(t, base, k))
		}
		return attach(t, base, all...)
	}
	good := named(t, "good")
	signature := peSignature(t, base, good)
	image := signed(good)
	between := newAuthority(t, ca)
	below := leafOf(t, between, rsaKey(2048), nil)
	shipped := &signer.Key{Signer: below.Signer, Chain: append(below.Chain[:1:1], between.cert)}
	pe := int(binary.LittleEndian.Uint32(base[0x3c:]))
	p256, p384 := e2e.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), e2e.Must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))

	return []judged{
		load(t, "RSA-3072, signed and exported by tenon", exported(t, leafOf(t, ca, rsaKey(3072), nil)), "accepted", "0", "0"),
		load(t, "ours put first by export, a foreign one behind", exported(t, foreign, good), "accepted", "0", "0"),
		load(t, "RSA-2048", image, "accepted", "0", "0"),
		load(t, "RSA-4096", signed(leafOf(t, ca, rsaKey(4096), nil)), "accepted", "0", "0"),
		load(t, "RSA-3072, in a PKCS#11 token", signed(tokenKey(t)), "accepted", "0", "0"),
		load(t, "ECDSA P-256", signed(leafOf(t, ca, p256, nil)), "accepted", "0", "ENOENT"),
		load(t, "ECDSA P-384", signed(leafOf(t, ca, p384, nil)), "accepted", "0", "ENOENT"),
		load(t, "intermediate in the signature", signed(shipped), "accepted", "0", "0"),
		load(t, "intermediate nowhere", signed(below), "refused", "ENOKEY", "ENOKEY"),
		load(t, "a foreign one first, ours behind", signed(foreign, good), "refused", "ENOKEY", "ENOKEY"),
		load(t, "unsigned", base, "refused", "ENODATA", "ENODATA"),
		load(t, "a byte of the body flipped", e2e.Flip(image, len(base)/2), "refused", "EKEYREJECTED", "EKEYREJECTED"),
		load(t, "a byte of the PE header flipped", e2e.Flip(image, pe+8), "refused", "EKEYREJECTED", "EKEYREJECTED"),
		load(t, "a byte of the signature flipped", attach(t, base, flipSignature(t, good, signature, len(signature))), "refused", "EINVAL", "EINVAL"),
		load(t, "a key of another authority", signed(foreign), "refused", "ENOKEY", "ENOKEY"),
		load(t, "the authority's own key", signed(ca.asKey()), "refused", "0", "0"),
		load(t, "leaf expired", signed(newKey(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })), "refused", "0", "0"),
		load(t, "leaf for TLS servers", signed(newKey(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), "refused", "0", "0"),
		load(t, "two signers in one signature, one of them unknown", attach(t, base, merged(t, peSignature(t, base, foreign), signature)), "refused", "0", "0"),
		load(t, "by sbsign", bySbsign(t, base, good), "accepted", "0", "0"),
		load(t, "by osslsigncode", byOsslsigncode(t, base, good, "sha256"), "accepted", "0", "0"),
		load(t, "by osslsigncode, SHA-1", byOsslsigncode(t, base, good, "sha1"), "refused", "0", "0"),
		load(t, "by osslsigncode, SHA-512", byOsslsigncode(t, base, good, "sha512"), "refused", "0", "ENOPKG"),
		load(t, "by osslsigncode, ECDSA P-256", byOsslsigncode(t, base, leafOf(t, ca, p256, nil), "sha256"), "accepted", "0", "ENOENT"),
		{judge.Step{Name: "kexec_load(2), which has no signature", Do: judge.Old}, "", "EPERM", "EACCES"},
	}
}

// exported signs the probe's bundle with each key and exports its kernel for a
// host that trusts the test CA.
func exported(t *testing.T, keys ...*signer.Key) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "probe.tenon")
	if err := os.CopyFS(path, os.DirFS(e2e.Probe(t))); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		key, cert := keyFiles(t, k)
		if o := e2e.Tenon(t, "sign", path, "--key", key, "--cert", cert); o.Code != 0 {
			t.Fatal(o)
		}
	}
	if o := e2e.Tenon(t, "export", path, "-o", path+".bzImage", "--cert", judgeDir()+"/ca.crt"); o.Code != 0 {
		t.Fatal(o)
	}
	return e2e.Must(os.ReadFile(path + ".bzImage"))
}

func keyFiles(t *testing.T, k *signer.Key) (key, cert string) {
	t.Helper()
	var ders [][]byte
	for _, c := range k.Chain {
		ders = append(ders, c.Raw)
	}
	return pemFile(t, "PRIVATE KEY", e2e.Must(x509.MarshalPKCS8PrivateKey(k.Signer))), pemFile(t, "CERTIFICATE", ders...)
}

func bySbsign(t *testing.T, image []byte, k *signer.Key) []byte {
	t.Helper()
	key, cert := keyFiles(t, k)
	return byTool(t, image, func(in, out string) *exec.Cmd {
		return exec.Command("sbsign", "--key", key, "--cert", cert, "--output", out, in)
	})
}

func byOsslsigncode(t *testing.T, image []byte, k *signer.Key, hash string) []byte {
	t.Helper()
	key, cert := keyFiles(t, k)
	return byTool(t, image, func(in, out string) *exec.Cmd {
		return exec.Command("osslsigncode", "sign", "-h", hash, "-key", key, "-certs", cert, "-in", in, "-out", out)
	})
}

func byTool(t *testing.T, image []byte, tool func(in, out string) *exec.Cmd) []byte {
	t.Helper()
	dir := t.TempDir()
	if o := e2e.Execute(tool(e2e.WriteFile(t, dir+"/in", image), dir+"/out")); o.Code != 0 {
		t.Fatal(o)
	}
	return e2e.Must(os.ReadFile(dir + "/out"))
}

// merged makes one PKCS#7 of two over the same content: RFC 2315 has a set of
// signers.
func merged(t *testing.T, a, b []byte) []byte {
	t.Helper()
	type signedData struct {
		Version      int
		Algorithms   asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue
		Signers      asn1.RawValue
	}
	type contentInfo struct {
		Type   asn1.ObjectIdentifier
		Signed signedData `asn1:"explicit,tag:0"`
	}
	var one, two contentInfo
	e2e.Must(asn1.Unmarshal(a, &one))
	e2e.Must(asn1.Unmarshal(b, &two))
	for _, both := range []struct{ to, from *asn1.RawValue }{
		{&one.Signed.Certificates, &two.Signed.Certificates}, {&one.Signed.Signers, &two.Signed.Signers},
	} {
		both.to.Bytes = append(bytes.Clone(both.to.Bytes), both.from.Bytes...)
		both.to.FullBytes = nil
	}
	return e2e.Must(asn1.Marshal(one))
}

// flipSignature flips a bit of the key's RSA signature that ends at end. What the
// kernel says depends on the number that comes out: EINVAL, unless it is by chance
// a small one.
func flipSignature(t *testing.T, key *signer.Key, data []byte, end int) []byte {
	t.Helper()
	public := key.Public().(*rsa.PublicKey)
	for at := end - 1; at >= end-16; at-- {
		out := e2e.Flip(data, at)
		n := new(big.Int).SetBytes(out[end-public.Size() : end])
		if n.Exp(n, big.NewInt(int64(public.E)), public.N).BitLen() > 8*(public.Size()-1) {
			return out
		}
	}
	t.Fatal("sixteen small numbers")
	return nil
}

// revoke is the case of an entry in the blacklist keyring that a key signed, and
// nobody when it is nil.
func revoke(t *testing.T, name, entry string, key *signer.Key, own, debian string) judged {
	t.Helper()
	step := judge.Step{Name: name, Do: judge.Revoke, Key: entry}
	if key != nil {
		step.Data = e2e.Must(pkcs7.SignDetached(key, []byte(entry)))
	}
	return judged{step, "", own, debian}
}

func tbs(c *x509.Certificate) string {
	return fmt.Sprintf("tbs:%x", sha256.Sum256(c.RawTBSCertificate))
}

// revokeCases change the kernel's mind while it runs, so they come last.
func revokeCases(t *testing.T) []judged {
	base, ca := probeKernel(t), testCA(t)
	good, bad := named(t, "good"), newKey(t, nil)
	between := newAuthority(t, ca)
	below := leafOf(t, between, rsaKey(2048), nil)
	below.Chain = append(below.Chain, between.cert)
	foreign := leafOf(t, newAuthority(t, nil), rsaKey(2048), nil)
	image, chained := attach(t, base, peSignature(t, base, bad)), attach(t, base, peSignature(t, base, below))
	both := attach(t, base, merged(t, peSignature(t, base, bad), peSignature(t, base, good)))
	digest := e2e.Must(parsePE(t, base).Digest(t.Context()))
	return []judged{
		load(t, "leaf that will be revoked", image, "accepted", "0", ""),
		revoke(t, "a tbs: entry that nobody signed", tbs(bad.Chain[0]), nil, "EBADMSG", ""),
		revoke(t, "a tbs: entry signed by another authority's key", tbs(bad.Chain[0]), foreign, "ENOKEY", ""),
		load(t, "leaf that is not revoked yet", image, "accepted", "0", ""),
		revoke(t, "a tbs: entry signed by ours", tbs(bad.Chain[0]), good, "0", ""),
		load(t, "leaf revoked by tbs:", image, "accepted", "EKEYREJECTED", ""),
		load(t, "two signers in one signature, one of them revoked", both, "refused", "0", ""),
		revoke(t, "a tbs: entry of an intermediate", tbs(between.cert), good, "0", ""),
		load(t, "intermediate revoked by tbs:", chained, "accepted", "EKEYREJECTED", ""),
		revoke(t, "a bin: entry of the image", fmt.Sprintf("bin:%x", digest), good, "0", ""),
		load(t, "image revoked by bin:", attach(t, base, peSignature(t, base, good)), "accepted", "0", ""),
	}
}

// dbxCases are about what dbxLists put into UEFI's list of the forbidden.
func dbxCases(t *testing.T) []judged {
	base := probeKernel(t)
	image := func(name string) []byte { return attach(t, base, peSignature(t, base, named(t, name))) }
	return []judged{
		load(t, "leaf in dbx as X509_SHA256", image("dbx time"), "accepted", "", "0"),
		load(t, "leaf in dbx as X509_SHA256 without a time", image("dbx digest"), "accepted", "", "EKEYREJECTED"),
		load(t, "leaf in dbx as X509", image("dbx certificate"), "accepted", "", "0"),
		load(t, "image in dbx as SHA256", image("good"), "accepted", "", "0"),
		revoke(t, "a tbs: entry signed by ours, without AUTH_UPDATE", tbs(named(t, "good").Chain[0]), named(t, "good"), "", "EACCES"),
	}
}

func dbxLists(t *testing.T) [][]byte {
	sum := func(name string) []byte {
		s := sha256.Sum256(named(t, name).Chain[0].RawTBSCertificate)
		return s[:]
	}
	digest := e2e.Must(parsePE(t, probeKernel(t)).Digest(t.Context()))
	return [][]byte{
		uefi.List(uefi.X509SHA256, append(sum("dbx time"), make([]byte, 16)...)), // the time of revocation: always
		uefi.List(uefi.X509SHA256, sum("dbx digest")),
		uefi.List(uefi.X509, named(t, "dbx certificate").Chain[0].Raw),
		uefi.List(uefi.SHA256, digest[:]),
	}
}

// tinySource is a module that does nothing.
const tinySource = `#include <linux/module.h>
MODULE_LICENSE("GPL");
static int __init tiny_init(void) { return 0; }
static void __exit tiny_exit(void) { }
module_init(tiny_init);
module_exit(tiny_exit);
`

// tinyModule compiles it with the arguments that name a kernel to make.
func tinyModule(t *testing.T, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	e2e.WriteFile(t, dir+"/tiny.c", []byte(tinySource))
	e2e.WriteFile(t, dir+"/Kbuild", []byte("obj-m := tiny.o\n"))
	// There is no list of the symbols that our own kernel exports.
	if o := e2e.Execute(exec.Command("make", append(args, "ARCH=x86_64", "M="+dir, "KBUILD_MODPOST_WARN=1", "modules")...)); o.Code != 0 {
		t.Fatal(o)
	}
	return dir + "/tiny.ko"
}

// preparedTree is an object tree in which modules for the kernel can be made.
func preparedTree(t *testing.T, k *kernel.Kernel, source *kernel.Source) string {
	t.Helper()
	dir := t.TempDir()
	e2e.WriteFile(t, dir+"/.config", e2e.Must(os.ReadFile(k.Path("config"))))
	if o := e2e.Execute(exec.Command("make", "-C", source.Dir, "O="+dir, "ARCH=x86_64", "-j2", "modules_prepare")); o.Code != 0 {
		t.Fatal(o)
	}
	return dir
}

// moduleCases are of the file's module. Under Secure Boot, Debian's kernel says
// EKEYREJECTED for every module without a signature that it can check.
func moduleCases(t *testing.T, path string) []judged {
	good := named(t, "good")
	foreign := leafOf(t, newAuthority(t, nil), rsaKey(2048), nil)
	plain := e2e.Must(os.ReadFile(path))
	signed := func(k *signer.Key, module []byte) []byte {
		key, cert := keyFiles(t, k)
		file := e2e.WriteFile(t, filepath.Join(t.TempDir(), "tiny.ko"), module)
		if o := e2e.Tenon(t, "sign", "--module", file, "--key", key, "--cert", cert); o.Code != 0 {
			t.Fatal(o)
		}
		return e2e.Must(os.ReadFile(file))
	}
	ours := signed(good, plain)
	authority := testCA(t).asKey()
	authoritys := bySignFile(t, plain, authority)
	insert := func(name string, module []byte, tenon, own, debian string) judged {
		return judged{judge.Step{Name: "module, " + name, Do: judge.Insert, Data: module}, tenon, own, debian}
	}
	return []judged{
		insert("signed by tenon", ours, "accepted", "0", "0"),
		insert("signed by a PKCS#11 token", e2e.Must(modsig.Sign(tokenKey(t), plain)), "accepted", "0", "0"),
		insert("unsigned", plain, "refused", "EPERM", "EKEYREJECTED"),
		insert("a byte flipped", e2e.Flip(ours, len(plain)/2), "refused", "EKEYREJECTED", "EKEYREJECTED"),
		insert("a byte of the signature flipped", flipSignature(t, good, ours, len(ours)-40), "refused", "EINVAL", "EINVAL"),
		insert("a key of another authority", signed(foreign, plain), "refused", "EPERM", "EKEYREJECTED"),
		insert("sign-file with a leaf, which it does not ship", bySignFile(t, plain, good), "refused", "EPERM", "EKEYREJECTED"),
		insert("sign-file with the authority's key", authoritys, "refused", "0", "0"),
		insert("sign-file with the authority's key, on top of tenon's", bySignFile(t, ours, authority), "refused", "0", "0"),
		insert("sign-file's replaced by tenon's", signed(good, authoritys), "accepted", "0", "0"),
	}
}

// bySignFile signs with the kernel's own script, of linux-kbuild.
func bySignFile(t *testing.T, module []byte, k *signer.Key) []byte {
	t.Helper()
	tools := e2e.Must(filepath.Glob("/usr/lib/linux-kbuild-*/scripts/sign-file"))
	if len(tools) == 0 {
		t.Fatal("no sign-file: run 'make deps'")
	}
	key, cert := keyFiles(t, k)
	return byTool(t, module, func(in, out string) *exec.Cmd {
		return exec.Command(tools[0], "sha256", key, cert, in, out)
	})
}
