// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/manifest"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/control"
	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/testdata/flat"
	"github.com/tenon-build/tenon/testdata/testbundle"
	"github.com/tenon-build/tenon/testdata/testpe"
)

// reply is what one command line did.
type reply struct {
	code           int
	stdout, stderr string
}

func invoke(t *testing.T, args ...string) reply {
	t.Helper()
	return invokeContext(t, t.Context(), args...)
}

func invokeContext(t *testing.T, ctx context.Context, args ...string) reply {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := newApp(&stdout, &stderr)
	code := a.Run(ctx, a.newRootCmd(), args)
	return reply{code, stdout.String(), stderr.String()}
}

// installAppinit puts a file where tenon looks for PID 1: beside the program,
// which here is the test's own, in a folder that go test removes.
func installAppinit(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(self), "appinit")
	if err := os.WriteFile(path, []byte("PID 1"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	})
}

// fakeTools makes a PATH on which all that compiles a kernel seems to be. No
// test here comes as far as to use it.
func fakeTools(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, tool := range []string{"make", "gcc", "ld", "flex", "bison", "bc", "zstd", "perl", "xz"} {
		if err := os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\necho version 1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func emptyImage(t *testing.T, architecture string) string {
	t.Helper()
	config := &v1.ConfigFile{OS: "linux", Architecture: architecture, RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{Cmd: []string{"/odd"}}}
	img, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), config)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "image")
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// imageOf is an image of an app /odd, a script, and of its interpreter.
func imageOf(t *testing.T, odd string) string {
	t.Helper()
	program := make([]byte, 64) // an ELF file of x86-64 without segments
	copy(program, "\x7fELF\x02\x01\x01")
	program[16], program[18] = 2, 62
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for name, content := range map[string]string{"odd": odd, "sh": string(program)} {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))})
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.MediaType(empty.Image, types.OCIManifestSchema1), static.NewLayer(layer.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture, config.Config.Cmd = "linux", "amd64", []string{"/odd"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "image")
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// dirWithOldFile is an image with two files of before 1970.
func dirWithOldFile(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for i, name := range []string{"old", "older"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("hello"), 0o644); err != nil {
			t.Fatal(err)
		}
		if when := time.Unix(int64(-1-i), 0); os.Chtimes(path, when, when) != nil {
			t.Fatal(path)
		}
	}
	if when := time.Unix(7, 0); os.Chtimes(dir, when, when) != nil {
		t.Fatal(dir)
	}
	return "dir:" + dir
}

func writeTemp(t *testing.T, name, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// writtenBundle is a bundle with a kernel that no machine boots.
func writtenBundle(t *testing.T) (path, digest string) {
	t.Helper()
	return writeBundle(t, `{"version":2}`)
}

func writeBundle(t *testing.T, fidelity string) (path, digest string) {
	t.Helper()
	return writeBundleOf(t, string(flat.Kernel(nil)), fidelity)
}

func writeBundleOf(t *testing.T, kernel, fidelity string, edits ...func(*manifest.Manifest)) (path, digest string) {
	t.Helper()
	zeros := "sha256:" + strings.Repeat("0", 64)
	m := &manifest.Manifest{
		Version: manifest.Version, Name: "web", Platform: "linux/amd64", Target: "qemu", Recipe: "static", CommandLine: "quiet",
		Kernel: manifest.Kernel{Release: "6.1.0", Source: zeros, Config: zeros}, Initramfs: manifest.Initramfs{Sealed: true, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("initramfs"))), Size: 9},
		App:    manifest.App{Entrypoint: []string{"/web"}, Env: []string{"A=1"}, User: "1000", Health: &manifest.Health{TCP: 80, Interval: 1e9, Timeout: 1e9, Retries: 1}},
		Claims: manifest.Claims{CPUs: manifest.Range{Min: 1, Max: 2}, Memory: manifest.Range{Min: 64 << 20, Max: 128 << 20}},
		Image:  manifest.Image{Reference: "oci:web", Digest: zeros},
	}
	for _, edit := range edits {
		edit(m)
	}
	path = filepath.Join(t.TempDir(), "web.tenon")
	sealed, err := testbundle.Seal([]byte(kernel), []byte("initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.New(bundle.Content{
		Manifest: m, Kernel: writeTemp(t, "bzImage", string(sealed)), Initramfs: writeTemp(t, "initramfs", "initramfs"), Config: writeTemp(t, "config", string(testbundle.Config())), SystemMap: writeTemp(t, "map", "m"), Fidelity: []byte(fidelity),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Save(t.Context(), path, nil); err != nil {
		t.Fatal(err)
	}
	return path, b.Digest.String()
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestErrors(t *testing.T) {
	installAppinit(t)
	fakeTools(t)
	missing := filepath.Join(t.TempDir(), "missing")
	written, _ := writtenBundle(t)
	garbage := writeTemp(t, "garbage", strings.Repeat("garbage ", 1000))
	recipe := func(line string) string { return writeTemp(t, "app.toml", line+"\n") }
	image, missingApp := imageOf(t, "#!/sh\n"), emptyImage(t, "amd64")
	keys := filepath.Join(t.TempDir(), "keys")
	if err := signer.Create(keys, signer.CreateOptions{Name: "test", Valid: time.Hour}); err != nil {
		t.Fatal(err)
	}
	locked, err := filepath.Abs("../../signer/testdata/openssl-pkcs8.key")
	if err != nil {
		t.Fatal(err)
	}
	policy := func(text string) string { return writeTemp(t, "policy.toml", text) }
	tests := []struct {
		name, args string
		code       int
		want, hint string
	}{
		{"no command", "", 2, "no command given", ""},
		{"unknown command", "frobnicate", 2, `unknown command "frobnicate" for "tenon" (see 'tenon --help')`, ""},
		{"unknown flag", "build --frobnicate x", 2, "unknown flag: --frobnicate (see 'tenon build --help')", ""},
		{"flag without a value", "build x -o", 2, "flag needs an argument", ""},
		{"flag of another type", "build x --jobs many", 2, `invalid argument "many"`, ""},
		{"no image", "build", 2, "accepts 1 arg(s), received 0 (see 'tenon build --help')", ""},
		{"two images", "build a b", 2, "accepts 1 arg(s), received 2", ""},
		{"no jobs", "build x --jobs 0", 2, "--jobs 0: must be at least 1", ""},
		{"unknown format", "build x --format yaml", 2, `--format "yaml" is neither text nor json`, ""},
		{"unknown target", "build x --target vmware", 2, `--target "vmware" is none of`, ""},
		{"version that is none", "build x --bundle-version v1.4", 2, `--bundle-version: "v1.4" is not a semantic version such as 1.4.0`, ""},
		{"malformed platform", "build x --platform a/b/c/d/e", 2, "--platform: ", ""},
		{"other platform", "build x --platform linux/arm64", 2, "neither linux/amd64 nor linux/amd64/VARIANT", ""},
		{"state that is empty", "verify x --cert x --state=", 2, "--state is empty", ""},
		{"no entries", "build x --max-entries 0", 2, "--max-entries 0: must be at least 1", ""},
		{"no ratio", "rootfs x --max-ratio -1", 2, "--max-ratio -1: must be at least 1", ""},
		{"no size", "rootfs x --max-size 0", 2, `--max-size "0" is not a size`, ""},
		{"pattern that matches nothing ever", "rootfs x --allow-drop ./x", 2, `"./x" is not a pattern`, ""},
		{"rootfs of another form", "rootfs " + image + " -o x.cpio.gz", 1, `writing "x.cpio.gz": the name ends neither in .cpio nor in .zst`, ""},
		{"rootfs into no folder", "rootfs " + image + " -o " + missing + "/x.cpio", 1, `missing/x.cpio": no such file or directory`, ""},
		{"malformed size", "build x --max-size much", 2, `--max-size "much" is not a size`, ""},

		{"sign without a key", "sign " + written, 2, "needs --key, or one of --prepare and --attach (see 'tenon sign --help')", ""},
		{"sign nothing", "sign --prepare", 2, "BUNDLE is missing", ""},
		{"sign in two phases at once", "sign --prepare --attach x " + written, 2, "[attach prepare] were all set", ""},
		{"prepare with a key", "sign --prepare --key x " + written, 2, "[key prepare] were all set", ""},
		{"answer with a bundle", "sign --request x --key x " + written, 2, "--request and --module take no bundle", ""},
		{"request that is missing", "sign --request " + missing + " --key " + keys + "/signing.key", 1, "reading request: open " + missing + ": no such file", ""},
		{"request that is none", "sign --attach " + garbage + " " + written, 1, "garbage\": invalid request: invalid character", ""},
		{"prepare what is no kernel", "sign --prepare " + written, 1, `signing bundle "web": invalid PE image`, ""},

		{"unknown recipe", "build x -r nosuch", 1, `unknown recipe "nosuch": have nginx, redis, static`, "choose one with -r NAME"},
		{"recipe file that is missing", "build x -r ./nosuch.toml", 1, "reading recipe: open ./nosuch.toml: no such file", ""},
		{"recipe with an unknown key", "build x -r " + recipe("description = \"x\"\ncolour = 1"), 1, `app.toml:2: unknown key "colour"`, ""},
		{"recipe with a bad size", "build x -r " + recipe("description = \"x\"\nclaims.cpus = {min=1,max=1}\nclaims.memory.min = \"much\""), 1, `app.toml: claims: memory.min: "much" is not a size`, ""},

		{"unknown image", "build oci:" + missing, 1, "no such image", "IMAGE is a registry reference, or oci:DIR"},
		{"malformed reference", "build UPPER/case", 1, `opening image "UPPER/case": `, ""},
		{"image without its app", "build " + missingApp, 1, `its app cannot start: entrypoint: "/odd": not in the image`, "--allow and the word after"},
		{"image whose app was written on Windows", "build " + imageOf(t, "#!/sh\r\n"), 1, "its app cannot start: interpreter: the first line of \"/odd\" ends in CR LF", "--allow and the word after"},
		{"unknown thing that is allowed", "build x --allow everything", 2, `--allow "everything" is none of entrypoint, interpreter`, ""},
		{"rootfs with a pattern that matches no file", "rootfs " + dirWithOldFile(t) + " --allow-drop ol", 1, `--allow-drop "ol" matches no file of the image`, "take the pattern out"},
		{"image of another platform", "build " + emptyImage(t, "arm64"), 1, "no image for this platform: it is for linux/arm64, want linux/amd64", "only linux/amd64"},
		{"image that no recipe fits", "build " + image, 1, `unknown recipe: no built-in recipe fits the program "odd"`, "choose one with -r NAME"},
		{"output that is something else", "build -r static -o " + garbage + " " + image, 1, "exists and is not a bundle", "choose another output with -o"},

		{"allowing to drop a path", "build x --allow-drop /etc", 2, `--allow-drop: "/etc" is not a pattern of a path without a leading slash`, ""},
		{"rootfs of nothing", "rootfs", 2, "accepts 1 arg(s), received 0 (see 'tenon rootfs --help')", ""},
		{"rootfs of a missing image", "rootfs oci:" + missing, 1, "opening image", "IMAGE is"},
		{"rootfs allowing to drop no pattern", "rootfs x --allow-drop [", 2, `--allow-drop: "[" is not a pattern`, ""},
		{"rootfs in an unknown format", "rootfs x --format yaml", 2, `--format "yaml"`, ""},
		{"rootfs and JSON to stdout", "rootfs x -o - --format json", 2, "stdout is where the archive goes", ""},
		{"rootfs over a folder", "rootfs " + image + " -o " + t.TempDir(), 1, "exists and is not a regular file", "choose another output with -o"},
		{"rootfs into no folder", "rootfs " + image + " -o " + missing + "/x.cpio", 1, "no such file or directory", ""},
		{"rootfs for another platform", "rootfs x --platform linux/arm64", 2, "neither linux/amd64", ""},
		{"rootfs with what does not fit", "rootfs " + dirWithOldFile(t), 1, `"old": modification time -1 does not fit the initramfs format (32 bits) (and 1 more files)`, "--allow-drop PATTERN"},
		{"rootfs with half of it waived", "rootfs " + dirWithOldFile(t) + " --allow-drop old", 1, `"older": modification time -2 does not fit the initramfs format (32 bits)`, "--allow-drop PATTERN"},

		{"inspect of nothing", "inspect " + missing, 1, "no such file", ""},
		{"inspect of garbage", "inspect " + garbage, 1, "invalid bundle: " + garbage + ": not an uncompressed tar archive", "a bundle is what 'tenon build' writes"},
		{"inspect of a folder", "inspect " + t.TempDir(), 1, "index.json: no such file", "a bundle is what 'tenon build' writes"},
		{"inspect without a bundle", "inspect", 2, "accepts 1 arg(s)", ""},
		{"inspect in an unknown format", "inspect --format yaml " + written, 2, "--format", ""},

		{"sign with a missing key", "sign --key " + missing + " " + written, 1, missing, ""},
		{"sign with a scheme", "sign --key pkcs12:x " + written, 1, `key reference "pkcs12:x": only file:, pkcs11: and NAME:// are known`, "file:PATH"},
		{"sign with a token's whole", "sign --key pkcs11:token=x --cert " + keys + "/signing.crt " + written, 1, `key reference pkcs11: names no key: needs object or id`, ""},
		{"sign with a PIN", "sign --key pkcs11:object=x?pin-value=1 " + written, 1, `a PIN is no part of a key reference`, "pin-source=file:PATH"},
		{"sign with an HSM", "sign --key pkcs11:object=x " + written, 1, `key "pkcs11:object=x": no certificate`, "--cert"},
		{"sign with a plug-in that is not there", "sign --key none://x --cert " + keys + "/signing.crt " + written, 1, `key "none://x": sigstore-kms-none: no such program on PATH`, "docs/keys.md"},
		{"sign with no file descriptor", "sign --passphrase-fd 99 --key " + locked + " " + written, 1, `--passphrase-fd 99: `, ""},
		{"sign with a locked key", "sign --key " + locked + " " + written, 1, "the private key is encrypted, and there is no passphrase", "--passphrase-fd"},
		{"sign with garbage", "sign --key " + garbage + " " + written, 1, garbage, ""},
		{"sign with a key without a certificate", "sign --key " + writeTemp(t, "bare.key", string(mustRead(t, keys+"/signing.key"))) + " " + written, 1, "bare.crt", "give the key's certificate with --cert"},
		{"sign with another's certificate", "sign --key " + keys + "/signing.key --cert " + keys + "/ca.crt " + written, 1, keys + "/ca.crt", ""},
		{"sign a kernel that is none", "sign --key " + keys + "/signing.key " + written, 1, `signing bundle "web": `, ""},
		{"sign a module that is none", "sign --key " + keys + "/signing.key --module " + garbage, 1, "invalid module: not an ELF file", ""},
		{"sign a compressed module", "sign --key " + keys + "/signing.key --module " + writeTemp(t, "m.ko.xz", "\xfd7zXZ\x00"), 1, "the module is compressed (xz)", "unpack it with gunzip, unxz"},
		{"sign a module that is missing", "sign --key " + keys + "/signing.key --module " + missing, 1, "no such file", ""},
		{"sign a module and a bundle", "sign --key " + keys + "/signing.key --module " + garbage + " " + written, 2, "--request and --module take no bundle", ""},
		{"sign a bundle into a file", "sign --key " + keys + "/signing.key -o x " + written, 2, "-o has no use here", ""},
		{"sign nothing", "sign --key " + keys + "/signing.key " + missing, 1, "no such file", ""},

		{"verify for nobody's trust", "verify " + written, 2, "nothing says whom to trust: give one of --key, --cert and --policy (see 'tenon verify --help')", ""},
		{"verify for two's trust", "verify --key x --cert y " + written, 2, "[cert key] were all set", ""},
		{"verify unsigned", "verify --cert " + keys + "/ca.crt " + written, 3, "refused: the bundle is not signed", "'tenon sign BUNDLE --key KEY'"},
		{"verify unsigned with a key", "verify --key " + keys + "/signing.pub " + written, 3, "refused: the bundle is not signed", ""},
		{"verify with a private key", "verify --key " + keys + "/signing.key " + written, 1, keys + "/signing.key: it holds a private key", "give the public key"},
		{"verify with a key for a certificate", "verify --cert " + keys + "/signing.pub " + written, 1, keys + "/signing.pub: it holds a public key", "give public keys with --key"},
		{"verify with a chain", "verify --cert " + keys + "/signing.crt " + written, 1, keys + "/signing.crt: it holds a chain", "give the file of the one that you trust"},
		{"verify with a certificate for a key", "verify --key " + keys + "/ca.crt " + written, 1, keys + "/ca.crt: it holds a certificate", "give certificates with --cert"},
		{"verify with a missing key", "verify --key " + missing + " " + written, 1, missing, ""},
		{"verify garbage", "verify --cert " + keys + "/ca.crt " + garbage, 3, "refused: opening bundle", "a bundle is what"},
		{"verify nothing", "verify --cert " + keys + "/ca.crt " + missing, 1, "no such file", ""},
		{"verify by an empty policy", "verify --policy " + policy("version = 1\n") + " " + written, 3, `the policy lets nobody sign for "web"`, ""},
		{"verify by a policy with an unknown key", "verify --policy " + policy("version = 1\ncolour = 1\n") + " " + written, 1, "policy.toml", ""},
		{"verify by a policy for others", "verify --policy " + policy("version = 1\n[[identity]]\nname = \"ci\"\ncertificates = \""+keys+"/ca.crt\"\nbundles = [\"redis\"]\n") + " " + written, 3, `the policy lets nobody sign for "web"`, ""},
		{"verify by a policy with a missing file", "verify --policy " + policy("version = 1\n[[identity]]\nname = \"ci\"\ncertificates = \"gone.crt\"\nbundles = [\"web\"]\n") + " " + written, 1, "gone.crt", ""},

		{"push to nowhere", "push " + written + " web:1", 1, `pushing to "web:1": not a reference to a registry`, "for example registry.example/"},
		{"push to a path", "push " + written + " oci:" + missing, 1, "not a reference to a registry", ""},
		{"push to nobody", "push " + written + " 127.0.0.1:1/web:1", 1, "connection refused", ""},
		{"push nothing", "push " + missing + " 127.0.0.1:1/web:1", 1, "no such file", ""},
		{"pull from nobody", "pull 127.0.0.1:1/web:1", 1, "connection refused", ""},
		{"pull over something else", "pull " + written + " -o " + garbage, 1, "exists and is not a bundle", "choose another output"},
		{"build for a tag alone", "build x -t 127.0.0.1:1/web:1", 2, "missing [push] (see", ""},
		{"build for a bad tag", "build x --push -t web", 2, `--tag "web": not a reference to a registry`, ""},
		{"build with a certificate alone", "build x --cert y", 2, "--cert without --key", ""},
		{"build with a missing key", "build x --key " + missing, 1, missing, ""},

		{"export in an unknown format", "export --format iso " + written, 2, `--format "iso" is none of kernel, uki and dir`, ""},
		{"export a kernel that is none", "export " + written, 1, `exporting bundle "web": `, ""},
		{"key without a verb", "key", 2, "no command given (see 'tenon key --help')", ""},
		{"key revoke without a list", "key revoke --key " + keys + "/signing.key", 2, `required flag(s) "list" not set (see 'tenon key revoke --help')`, ""},
		{"key create of nothing", "key create", 2, "accepts 1 arg(s)", ""},
		{"key create over keys", "key create " + keys, 1, keys, "keys are never replaced"},
		{"key create for no time", "key create --days 0 " + missing, 2, "--days 0: must be 1 to 36500", ""},
		{"key create for ever", "key create --days 999999 " + missing, 2, "--days 999999: must be 1 to 36500", ""},

		// As docker run, 125 is every failure of ours; 2 and 3 belong to the app.
		{"run for nobody's trust", "run " + written, 125, "nothing says whom to trust", "'tenon run --allow-unsigned'"},
		{"run unsigned", "run --cert " + keys + "/ca.crt " + written, 125, "refused: the bundle is not signed", "'tenon sign BUNDLE --key KEY' signs it"},
		{"run for everybody's trust", "run --allow-unsigned --cert x " + written, 125, "[allow-unsigned cert] were all set (see 'tenon run --help')", ""},
		{"run unsigned, remembered", "run --allow-unsigned --state " + keys + " " + written, 125, "[allow-unsigned state] were all set (see 'tenon run --help')", ""},
		{"run nothing", "run --allow-unsigned " + missing, 125, "no such file", ""},
		{"run garbage", "run --allow-unsigned " + garbage, 125, "invalid bundle", "a bundle is what"},
		{"run without QEMU", "run --allow-unsigned " + written, 125, "qemu-system-x86_64 not found", "apt-get install qemu-system-x86"},
		{"run outside the claims", "run --allow-unsigned -m 1G " + written, 125, `"web" takes 64 to 128 MiB of memory, not 1024`, "'tenon inspect BUNDLE' shows the claims"},
		{"run with a port and no network", "run --allow-unsigned -p 80:80 " + written, 125, "no network interface", "'tenon inspect BUNDLE'"},
		{"run with an undeclared parameter", "run --allow-unsigned -e LD_PRELOAD=x " + written, 125, `LD_PRELOAD is not a parameter of "web"`, ""},
		{"run without a bundle", "run", 125, "accepts 1 arg(s)", ""},
		{"run with an unknown flag", "run --frobnicate x", 125, "unknown flag", ""},
		{"run with a malformed port", "run -p x " + written, 125, `--publish "x": want [ADDRESS:]HOST:GUEST[/udp]`, ""},
		{"run with a malformed parameter", "run -e x " + written, 125, `--env: x has no value, and is not set here`, ""},
		{"run with malformed memory", "run -m much " + written, 125, `--memory "much" is not a size such as 512M`, ""},
		{"run with negative CPUs", "run --cpus -1 " + written, 125, "--cpus -1: must be positive", ""},
		{"run with an unknown accelerator", "run --accel xen " + written, 125, `--accel "xen" is neither kvm nor tcg`, ""},

		{"recipe without a verb", "recipe", 2, "no command given (see 'tenon recipe --help')", ""},
		{"recipe with an unknown verb", "recipe frobnicate", 2, `unknown command "frobnicate"`, ""},
		{"recipe show of nothing", "recipe show", 2, "accepts 1 arg(s)", ""},
		{"recipe show of an unknown one", "recipe show nosuch", 1, `unknown recipe "nosuch"`, ""},
		{"recipe ls of one", "recipe ls redis", 2, "unknown command", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			args := strings.Fields(test.args)
			if len(args) > 0 && args[0] == "build" {
				args = append(args, "--cache-dir", missing+"-cache")
				if args[len(args)-3] == "-o" {
					args = args[:len(args)-2] // it takes what follows for its value
				}
			}
			r := invoke(t, args...)
			if r.code != test.code {
				t.Errorf("status %d, want %d", r.code, test.code)
			}
			var errs, hints []string
			for line := range strings.Lines(r.stderr) {
				if e, ok := strings.CutPrefix(line, "tenon: error: "); ok {
					errs = append(errs, e)
				} else if h, ok := strings.CutPrefix(line, "tenon: hint: "); ok {
					hints = append(hints, h)
				} else if !strings.HasPrefix(line, "tenon: ") && args[0] != "verify" { // which lists its checks
					t.Errorf("a line without our name: %q", line)
				}
			}
			if len(errs) != 1 || !strings.Contains(errs[0], test.want) {
				t.Errorf("got\n%swant one line with %q", r.stderr, test.want)
			}
			if test.hint == "" && len(hints) > 1 || test.hint != "" && (len(hints) != 1 || !strings.Contains(hints[0], test.hint)) {
				t.Errorf("got\n%swant the hint %q", r.stderr, test.hint)
			}
			if !strings.HasSuffix(r.stderr, "\n") || r.stdout != "" && test.args != "" {
				t.Errorf("stdout %q", r.stdout)
			}
			if left, err := os.ReadDir("."); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	if data, err := os.ReadFile(garbage); err != nil || !strings.HasPrefix(string(data), "garbage") {
		t.Errorf("what was in the way is gone: %v", err)
	}
}

func TestWithoutAppinit(t *testing.T) {
	r := invoke(t, "build", "oci:x")
	if r.code != 1 || !strings.Contains(r.stderr, "tenon: error: PID 1 (appinit) not found beside ") || !strings.Contains(r.stderr, "hint: 'make build' puts it there") {
		t.Errorf("%+v", r)
	}
}

func TestInterrupted(t *testing.T) {
	installAppinit(t)
	fakeTools(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := invokeContext(t, ctx, "build", "--cache-dir", t.TempDir(), emptyImage(t, "amd64"))
	if r.code != 1 || r.stderr != "tenon: error: interrupted\n" {
		t.Errorf("%+v", r)
	}
}

// CI systems give jobs caches that others could write to.
func TestBuildWithASharedCache(t *testing.T) {
	installAppinit(t)
	fakeTools(t)
	base := t.TempDir()
	if err := os.Chmod(base, 0o777); err != nil {
		t.Fatal(err)
	}
	build := func(args ...string) reply {
		return invoke(t, append([]string{"build", "--cache-dir", base + "/cache", "oci:nosuch"}, args...)...)
	}
	if r := build(); r.code != 1 || !strings.Contains(r.stderr, base+" has the mode 0777") || !strings.Contains(r.stderr, "'chmod go-w' what the error names") || !strings.Contains(r.stderr, "--trust-cache-dir") {
		t.Errorf("%+v", r)
	}
	if r := build("--trust-cache-dir"); strings.Contains(r.stderr, "the cache is not private") {
		t.Errorf("%+v", r)
	}
	for value, want := range map[string]string{"true": "", "1": "", "false": "the cache is not private", "yes": `$TENON_TRUST_CACHE_DIR is "yes": must be true or false`} {
		t.Setenv(trustCacheVariable, value)
		r := build()
		if want == "" && strings.Contains(r.stderr, "the cache is not private") || !strings.Contains(r.stderr, want) {
			t.Errorf("%q: %+v", value, r)
		}
		if r := build("--trust-cache-dir=false"); !strings.Contains(r.stderr, "the cache is not private") {
			t.Errorf("the flag does not count: %+v", r)
		}
	}
}

// A report that says nothing, or is of another version, is one line and no panic.
func TestInspectFidelity(t *testing.T) {
	for report, want := range map[string]string{
		"null": "null where { is due", `{"version":9}`: "unsupported version 9", `{"version":2,"x":1}`: `unknown field "x"`, "<html>": "fidelity report",
	} {
		path, _ := writeBundle(t, report)
		for _, verb := range [][]string{{"inspect", path}, {"diff", path, path}} {
			if r := invoke(t, verb...); r.code == 0 || !strings.Contains(r.stderr, want) || strings.Count(r.stderr, "tenon: error: ") != 1 {
				t.Errorf("%s of %q: %+v", verb[0], report, r)
			}
		}
	}
}

func TestHelp(t *testing.T) {
	for args, want := range map[string]string{
		"--help": "Usage:", "build --help": "oci-archive:FILE", "run --help": "--allow-unsigned", "rootfs --help": "--allow-drop", "inspect --help": "BUNDLE", "diff --help": "exit status", "recipe --help": "show", "--version": "tenon version",
	} {
		if r := invoke(t, strings.Fields(args)...); r.code != 0 || !strings.Contains(r.stdout, want) || r.stderr != "" {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

func TestInspect(t *testing.T) {
	path, digest := writtenBundle(t)
	for _, ref := range []string{path, "oci:" + path} {
		r := invoke(t, "inspect", ref)
		for _, want := range []string{"web", digest, "qemu on linux/amd64", "sealed: the kernel unpacks no other", "TCP port 80 every 1s", "64 MiB to 128 MiB", "signed        no", string(bundle.KernelType)} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("no %q in\n%s", want, r.stdout)
			}
		}
		if r.code != 0 || r.stderr != "" {
			t.Errorf("%+v", r)
		}
	}
	r := invoke(t, "inspect", "--format", "json", path)
	var got inspection
	if err := json.Unmarshal([]byte(r.stdout), &got); err != nil || got.Digest != digest || got.Manifest.Name != "web" || len(got.Layers) != 5 || r.code != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// A secret parameter's value is nowhere in what is shown.
func TestInspectSecret(t *testing.T) {
	hunter := "hunter2"
	path, _ := writeBundleOf(t, string(flat.Kernel(nil)), `{"version":2}`, func(m *manifest.Manifest) {
		m.App.Env = append(m.App.Env, "TOKEN=hunter1")
		m.Parameters = []manifest.Parameter{{Name: "TOKEN", Type: "string", Default: &hunter, Secret: true}}
	})
	for _, line := range [][]string{{"inspect", path}, {"inspect", path, "--format", "json"}} {
		r := invoke(t, line...)
		if out := r.stdout + r.stderr; strings.Contains(out, "hunter") || !strings.Contains(out, "TOKEN") || !strings.Contains(out, manifest.Mask) {
			t.Errorf("%q: %s", line, out)
		}
	}
}

func TestRecipe(t *testing.T) {
	if r := invoke(t, "recipe", "ls"); r.code != 0 || !strings.HasPrefix(r.stdout, "NAME ") || strings.Count(r.stdout, "\n") != 4 {
		t.Errorf("%+v", r)
	}
	var rows []struct{ Name, Target, Description string }
	if r := invoke(t, "recipe", "ls", "--format", "json"); json.Unmarshal([]byte(r.stdout), &rows) != nil || len(rows) != 3 || rows[1].Name != "redis" {
		t.Errorf("%+v", r)
	}
	want, err := os.ReadFile("../../recipes/redis.toml")
	if err != nil {
		t.Fatal(err)
	}
	if r := invoke(t, "recipe", "show", "redis"); r.code != 0 || r.stdout != string(want) {
		t.Errorf("%+v", r)
	}
}

// What an app ends with is not to be taken for a failure of ours.
func TestExitStatus(t *testing.T) {
	tests := []struct {
		exit   control.Exit
		code   int
		stderr string
	}{
		{control.Exit{}, 0, ""},
		{control.Exit{Code: 1}, 1, ""},
		{control.Exit{Code: 2}, 2, ""},
		{control.Exit{Code: 3}, 3, ""},
		{control.Exit{Code: 255}, 255, ""},
		{control.Exit{Signal: 9}, 137, ""},
		{control.Exit{Signal: 15}, 143, ""},
		{control.Exit{Code: 127, Error: "/app: not found"}, 127, "tenon: error: starting the app: /app: not found\n"},
	}
	for _, test := range tests {
		var stderr bytes.Buffer
		a := newApp(nil, &stderr)
		if code := a.Status("run", cli.ExitStatus(&test.exit)); code != test.code || stderr.String() != test.stderr {
			t.Errorf("%+v: %d, %q", test.exit, code, stderr.String())
		}
	}
}

func TestStatus(t *testing.T) {
	refused := fmt.Errorf("bundle: %w: x", loader.ErrRefused)
	for _, test := range []struct {
		verb string
		err  error
		want int
	}{
		{"build", nil, 0}, {"run", nil, 0},
		{"build", errors.New("x"), 1}, {"run", errors.New("x"), 125}, {"diff", errors.New("x"), 2},
		{"verify", refused, 3}, {"run", refused, 125},
		{"build", fs.ErrNotExist, 1},
		{"build", errors.Join(cli.Exit(2, errors.New("a\nb")), errors.New("c")), 2},
		{"build", cli.Usage(&cobra.Command{Use: "build"}, errors.New("x")), 2}, {"run", cli.Usage(&cobra.Command{Use: "run"}, errors.New("x")), 125},
	} {
		var stderr bytes.Buffer
		a := newApp(nil, &stderr)
		if got := a.Status(test.verb, test.err); got != test.want || strings.Count(stderr.String(), "\n") > 1 || (stderr.Len() > 0) != (test.err != nil) {
			t.Errorf("%s, %v: %d, %q", test.verb, test.err, got, stderr.String())
		}
	}
}

func TestParseForward(t *testing.T) {
	tests := []struct {
		in   string
		want loader.Forward
		err  string
	}{
		{"80:8080", loader.Forward{Protocol: "tcp", HostAddress: "127.0.0.1", HostPort: 80, GuestPort: 8080}, ""},
		{"80:8080/tcp", loader.Forward{Protocol: "tcp", HostAddress: "127.0.0.1", HostPort: 80, GuestPort: 8080}, ""},
		{"53:53/udp", loader.Forward{Protocol: "udp", HostAddress: "127.0.0.1", HostPort: 53, GuestPort: 53}, ""},
		{"0.0.0.0:1:65535", loader.Forward{Protocol: "tcp", HostAddress: "0.0.0.0", HostPort: 1, GuestPort: 65535}, ""},
		{"", loader.Forward{}, "want [ADDRESS:]HOST:GUEST[/udp]"},
		{"80", loader.Forward{}, "want [ADDRESS:]HOST:GUEST[/udp]"},
		{"1:2:3:4", loader.Forward{}, "want [ADDRESS:]HOST:GUEST[/udp]"},
		{"80:0", loader.Forward{}, `"0" is not a port`},
		{":80", loader.Forward{}, `"" is not a port`},
		{"80:65536", loader.Forward{}, `"65536" is not a port`},
		{"-1:80", loader.Forward{}, `"-1" is not a port`},
		{"http:80", loader.Forward{}, `"http" is not a port`},
		{"80:80/sctp", loader.Forward{}, `protocol "sctp" is neither tcp nor udp`},
		{"80:80/", loader.Forward{}, `protocol "" is neither`},
		{"localhost:80:80", loader.Forward{}, `"localhost" is not an IPv4 address`},
		{"::1:80:80", loader.Forward{}, "want "},
		// It goes into an option of QEMU.
		{"127.0.0.1,x=y:80:80", loader.Forward{}, "is not an IPv4 address"},
	}
	for _, test := range tests {
		var got loader.Forward
		err := got.UnmarshalText([]byte(test.in))
		if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q: %+v, %v", test.in, got, err)
		}
	}
}

// Bundles of version 1 had the initramfs inside the kernel image.
func TestOlderBundle(t *testing.T) {
	path, _ := writeBundleOf(t, string(testpe.Image(nil)), `{"version":2}`)
	rewrite(t, path, `{"version":2,"name"`, `{"version":1,"name"`)
	for _, args := range [][]string{
		{"inspect", path}, {"diff", path, path}, {"export", path, "-o", t.TempDir() + "/x"}, {"run", path, "--allow-unsigned"},
		{"sign", "--prepare", path}, {"pull", path, "-o", t.TempDir() + "/y"},
	} {
		r := invoke(t, args...)
		if r.code == 0 || !strings.Contains(r.stderr, "unsupported version 1") || !strings.Contains(r.stderr, "hint: the bundle was made by another version of tenon: build it again") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// What says that it is sealed, and is not, is neither signed nor run.
func TestSealedInNameAlone(t *testing.T) {
	keys := filepath.Join(t.TempDir(), "keys")
	if r := invoke(t, "key", "create", keys); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	own, err := seal.Of(strings.NewReader("initramfs"), 9)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ old, new, want string }{
		"a kernel without a slot":       {seal.Magic, "TENONSEAL slot 2", "not a kernel image with a seal: it has no slot"},
		"a kernel that is not sealed":   {"CONFIG_TENON_SEAL=y", "CONFIG_TENON_SEAL=n", "the kernel cannot be sealed: TENON_SEAL=n"},
		"a kernel that takes a command": {"CONFIG_CMDLINE_OVERRIDE=y", "CONFIG_CMDLINE_OVERRIDE=n", "the kernel cannot be sealed: CMDLINE_OVERRIDE=n"},
		"a kernel with another reader":  {"CONFIG_EFI_STUB=y", "CONFIG_DEVMEM=y\n#", "the kernel cannot be sealed: DEVMEM=y, EFI_STUB=n"},
		"a kernel of another initramfs": {string(own.Digest[:]), strings.Repeat("x", len(own.Digest)), "another initramfs than the kernel's"},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := writeBundleOf(t, string(testpe.Image(nil)), `{"version":2}`)
			rewrite(t, path, test.old, test.new)
			for _, args := range [][]string{{"sign", path, "--key", keys + "/signing.key"}, {"sign", "--prepare", path}, {"run", "--allow-unsigned", path}} {
				if r := invoke(t, args...); r.code == 0 || !strings.Contains(r.stderr, test.want) {
					t.Errorf("%q: %+v", args, r)
				}
			}
		})
	}
}

// rewrite replaces a text by one of the same length in the files of a layout, and then, in
// what names them, the digests of those.
func rewrite(t *testing.T, layout, old, new string) {
	t.Helper()
	blobs, err := filepath.Glob(layout + "/blobs/sha256/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(blobs, layout+"/index.json") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(string(data), old, new)
		if changed == string(data) {
			continue
		}
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		if filepath.Base(file) == "index.json" {
			continue
		}
		digest := fmt.Sprintf("%x", sha256.Sum256([]byte(changed)))
		if err := os.Rename(file, filepath.Join(filepath.Dir(file), digest)); err != nil {
			t.Fatal(err)
		}
		rewrite(t, layout, filepath.Base(file), digest)
		rewrite(t, layout, old, new) // with other names by now
		return
	}
}
