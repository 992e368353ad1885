// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/tenon-build/tenon/builder"
	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/fidelity"
	"github.com/tenon-build/tenon/builder/image"
	"github.com/tenon-build/tenon/builder/initramfs"
	"github.com/tenon-build/tenon/builder/kernel"
	"github.com/tenon-build/tenon/builder/preflight"
	"github.com/tenon-build/tenon/builder/rootfs"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/recipes"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/modsig"
	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/pkcs11uri"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/request"
	"github.com/tenon-build/tenon/signer/revocation"
	"github.com/tenon-build/tenon/signer/strictjson"
	"github.com/tenon-build/tenon/signer/trust"
)

// hints are the next steps for errors, the most particular first.
var hints = []struct {
	err  error
	hint string
}{
	{loader.ErrNoTrust, "a bundle that nobody signed runs on your own machine with 'tenon run --allow-unsigned'"},
	{loader.ErrUnsigned, "'tenon sign BUNDLE --key KEY' signs it; on your own machine it runs with 'tenon run --allow-unsigned'"},
	{kernel.ErrShared, "choose another --cache-dir; or 'chown' and 'chmod go-w' what the error names, and empty the cache; where nobody else can reach it, as in a CI job: --trust-cache-dir"},
	{ownership.ErrUnsafe, "'chown root FILE' and 'chmod go-w FILE', and the same for the directories that it is in"},
	{loader.ErrPrivateKey, "give the public key, signing.pub, or a certificate with --cert"},
	{trust.ErrCertificate, "give certificates with --cert"},
	{trust.ErrPublicKey, "give public keys with --key"},
	{trust.ErrChain, "give the file of the one that you trust: the authority's, or the leaf's alone"},
	{revocation.ErrInvalid, "whoever signs the list issues it anew: 'tenon key revoke --list FILE --key KEY'"},
	{loader.ErrRollback, "what was seen is in trust.json of the --state directory"},
	{trust.ErrName, cli.NameHint},
	{loader.ErrUntrusted, "'tenon inspect BUNDLE' shows who signed it"},
	{builder.ErrChoose, "choose whose signature comes first with --cert"},
	{modsig.ErrCompressed, "unpack it with gunzip, unxz or 'zstd -d', sign it, and pack it again: kernels look inside"},
	{signer.ErrExists, "keys are never replaced: choose another folder"},
	{signer.ErrEncrypted, "the passphrase is taken from --passphrase-fd, $TENON_PASSPHRASE or the terminal, that of an issuer's key from $TENON_ISSUER_PASSPHRASE first"},
	{signer.ErrNoPlugin, "put it there: sigstore-kms-pkcs11 comes with tenon, the others from whoever keeps the key (docs/keys.md)"},
	{pkcs11uri.ErrPIN, "the PIN is taken from pin-source=file:PATH, --passphrase-fd, $TENON_PIN or the terminal"},
	{signer.ErrReference, "a path whose first part has a colon is given as file:PATH"},
	{signer.ErrElsewhere, "make a new key there, and give its public key or a signing request with --public-key"},
	{signer.ErrIssuer, "an --issuer is the folder of a CA that 'tenon key create' made, or a CA's key, with its certificates in --issuer-cert"},
	{signer.ErrNoLeaf, "'tenon key create --profile release' makes a leaf; an authority is replaced by making another"},
	{request.ErrUnanswered, "'tenon sign --request FILE --key KEY' signs it, or fill in each signature yourself (docs/keys.md)"},
	{request.ErrSubject, "'tenon sign --prepare BUNDLE' makes the request for this one"},
	{signer.ErrNoCertificate, "give the key's certificate with --cert, or make both with 'tenon key create'"},
	{bundle.ErrReference, "for example registry.example/team/redis:1.4"},
	{loader.ErrClaims, "'tenon inspect BUNDLE' shows the claims; the least memory is what its root file system needs to boot"},
	{strictjson.ErrVersion, "the bundle was made by another version of tenon: build it again"},
	{bundle.ErrExists, "choose another output with -o, or remove it"},
	{rootfs.ErrEntries, "--max-entries allows more"},
	{rootfs.ErrSize, "--max-size allows more"},
	{rootfs.ErrRatio, "real layers are 2 to 10 times their size; --max-ratio allows more"},
	{initramfs.ErrMisfit, "--allow-drop PATTERN lets files that match lose what does not fit, or leaves them out, and the report says so"},
	{fidelity.ErrLimit, "leave the files out with a recipe's drop, instead of --allow-drop"},
	{regular.ErrOutput, "choose another output with -o"},
	{seal.ErrConfig, "a sealed kernel has none of this (docs/seal.md): leave it out of the recipe, or build with --detached, which is weaker"},
	{builder.ErrDetached, "a unified kernel image is made of a bundle that was built without --detached"},
	{errNoStub, "apt-get install systemd-boot-efi, or give it with --stub"},
	{preflight.ErrCannotStart, "mend the image, or the recipe; where it comes right at run time, --allow and the word after 'cannot start'"},
	{recipes.ErrNoMatch, "take the pattern out, or mend it; a recipe lists what only some images have under drop_if_present"},
	{builder.ErrTooLarge, "make the image smaller: what a recipe lists under drop is left out"},
	{image.ErrPlatform, "only linux/amd64 can be built so far: give an image that is made for it; --platform linux/amd64/v3 takes one that needs a newer CPU"},
	{image.ErrNotFound, "IMAGE is a registry reference, or oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE, dir:ROOTFS"},
	{kernel.ErrNoSource, "apt-get install linux-source-6.1, or give a folder or a tarball with --kernel-source"},
	{kernel.ErrMissingTools, "apt-get install make gcc flex bison bc libelf-dev zstd perl xz-utils"},
	{syscall.ENOSPC, "make room; temporary files go to $TMPDIR, the cache of a build to its --cache-dir"},
	{recipes.ErrUnknown, "choose one with -r NAME, or write your own and give its file: -r ./FILE.toml"},
	{qemu.ErrNoQEMU, "apt-get install qemu-system-x86"},
	{fs.ErrExist, "choose another output with -o, or remove it"},
	{errNoAppinit, "'make build' puts it there"},
	{bundle.ErrInvalid, "a bundle is what 'tenon build' writes: oci:DIR, oci-archive:FILE, a path to either, or HOST/NAME:TAG"},
}

func hint(err error) string {
	if h := cli.RegistryHint(err); h != "" {
		return h
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return h.hint
		}
	}
	return ""
}
