// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/seal"
	"github.com/tenon-build/tenon/builder/bundle/signature"
	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/testdata/e2e"
)

// verify checks that a bundle is accepted with that digest, or refused.
func verify(t *testing.T, ref, digest string) {
	t.Helper()
	o := e2e.Tenon(t, "verify", ref, "--cert", e2e.Keys(t)+"/ca.crt")
	if digest != "" && (o.Code != 0 || strings.TrimSpace(o.Stdout) != digest) || digest == "" && o.Code != cli.ExitRefused {
		t.Errorf("verify %s, want %q: %s", ref, digest, o)
	}
}

// signInPhases signs the probe where no bundle is, with our program and with
// openssl, and compares with the bundle that was signed in one go.
func signInPhases(t *testing.T, signed, digest string) {
	keys, dir := e2e.Keys(t), t.TempDir()
	prepared, answered := dir+"/request.json", dir+"/signed.json"
	if o := e2e.Tenon(t, "sign", "--prepare", e2e.Probe(t), "-o", prepared); o.Code != 0 || o.Stdout != "" {
		t.Fatal(o)
	}
	if o := e2e.Tenon(t, "sign", "--request", prepared, "--key", keys+"/signing.key", "-o", answered); o.Code != 0 || strings.Count(o.Stderr, "signing ") != 3 {
		t.Fatal(o)
	}
	attached := func(request string, args ...string) (string, e2e.Outcome) {
		path := filepath.Join(t.TempDir(), "probe.tenon")
		if err := os.CopyFS(path, os.DirFS(e2e.Probe(t))); err != nil {
			t.Fatal(err)
		}
		return path, e2e.Tenon(t, append([]string{"sign", "--attach", request, path}, args...)...)
	}
	same := func(request string, args ...string) {
		t.Helper()
		path, o := attached(request, args...)
		if o.Code != 0 || strings.TrimSpace(o.Stdout) != digest {
			t.Fatal(o)
		}
		verify(t, path, digest)
		if o := e2e.Execute(exec.Command("diff", "-r", path, signed)); o.Code != 0 {
			t.Error(o)
		}
	}
	same(answered)

	// Field by field, as docs/keys.md tells an operator who has openssl alone.
	byOpenSSL := string(e2e.Must(os.ReadFile(prepared)))
	for _, data := range regexp.MustCompile(`"data": "([^"]*)"`).FindAllStringSubmatch(byOpenSSL, -1) {
		cmd := exec.Command("openssl", "dgst", "-sha256", "-sign", keys+"/signing.key")
		cmd.Stdin = bytes.NewReader(e2e.Must(base64.StdEncoding.DecodeString(data[1])))
		signature := base64.StdEncoding.EncodeToString(e2e.Must(cmd.Output()))
		byOpenSSL = strings.Replace(byOpenSSL, data[0], data[0]+`, "signature": "`+signature+`"`, 1)
	}
	byHand := dir + "/by-hand.json"
	if err := os.WriteFile(byHand, []byte(byOpenSSL), 0o600); err != nil {
		t.Fatal(err)
	}
	same(byHand, "--cert", keys+"/signing.crt")

	for _, test := range []struct {
		request, want string
		args          []string
	}{
		{prepared, "not signed: authenticode has no signature", []string{"--cert", keys + "/signing.crt"}},
		{byHand, "certificates: no certificate", nil},
		{byHand, "is an authority's", []string{"--cert", keys + "/ca.crt"}},
	} {
		path, o := attached(test.request, test.args...)
		if o.Code != cli.ExitFailed || !strings.Contains(o.Stderr, test.want) || o.Stdout != "" {
			t.Errorf("want %q: %s", test.want, o)
		}
		if o := e2e.Execute(exec.Command("diff", "-r", path, e2e.Probe(t))); o.Code != 0 {
			t.Errorf("%s: left something: %s", test.want, o)
		}
	}
	renamed := strings.Replace(string(e2e.Must(os.ReadFile(answered))), `"name": "probe"`, `"name": "other"`, 1)
	if err := os.WriteFile(byHand, []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, o := attached(byHand); o.Code != cli.ExitFailed || !strings.Contains(o.Stderr, `the request is about another bundle: "other"`) {
		t.Error(o)
	}
}

// TestE2ESign checks what build and sign make with tools that others wrote.
func TestE2ESign(t *testing.T) {
	path, digest := e2e.SignedProbe(t)
	keys := e2e.Keys(t)
	verify(t, path, digest)

	t.Run("build --key makes the same", func(t *testing.T) {
		built, got := e2e.Build(t, "-r", e2e.ProbeRecipe(), "--name", "probe", "--key", keys+"/signing.key", e2e.Image(t, nil, e2e.ProbeFiles...))
		if o := e2e.Execute(exec.Command("diff", "-r", built, path)); o.Code != 0 || got != digest {
			t.Errorf("%s, want %s: %s", got, digest, o)
		}
		archive := "oci-archive:" + t.TempDir() + "/probe.tar"
		if o := e2e.Tenon(t, "pull", path, "-o", archive); o.Code != 0 {
			t.Fatal(o)
		}
		verify(t, archive, digest)
	})
	t.Run("runs", func(t *testing.T) {
		for _, trust := range [][]string{{"--cert", keys + "/ca.crt"}, {"--key", keys + "/signing.pub"}} {
			o := e2e.Tenon(t, append([]string{"run", "--accel", "tcg", "-e", "PROBE=exit:42", path}, trust...)...)
			if o.Code != 42 || strings.Contains(o.Stderr, "warning") {
				t.Error(o)
			}
		}
	})
	t.Run("in two phases", func(t *testing.T) { signInPhases(t, path, digest) })
	t.Run("does not run for others", func(t *testing.T) {
		others := filepath.Join(t.TempDir(), "others")
		if o := e2e.Tenon(t, "key", "create", others); o.Code != 0 {
			t.Fatal(o)
		}
		o := e2e.Tenon(t, "run", "--accel", "tcg", "--cert", others+"/ca.crt", path)
		if o.Code != cli.ExitRun || !strings.Contains(o.Stderr, "no sigstore signature of") || o.Stdout != "" {
			t.Error(o)
		}
	})
	t.Run("json", func(t *testing.T) {
		var v cli.Verdict
		o := e2e.Tenon(t, "verify", path, "--cert", keys+"/ca.crt", "--format", "json")
		if err := json.Unmarshal([]byte(o.Stdout), &v); err != nil || !v.Accepted || v.Digest != digest || len(v.Checks) != 11 {
			t.Errorf("%v: %s", err, o)
		}
		o = e2e.Tenon(t, "verify", e2e.Probe(t), "--cert", keys+"/ca.crt", "--format", "json")
		if err := json.Unmarshal([]byte(o.Stdout), &v); err != nil || v.Accepted || o.Code != cli.ExitRefused || !strings.Contains(v.Reason, "not signed") {
			t.Errorf("%v: %s", err, o)
		}
	})
}

// TestE2EExport flips bytes of an exported kernel and of the bundle, and asks
// everybody.
func TestE2EExport(t *testing.T) {
	path, _ := e2e.SignedProbe(t)
	keys, dir := e2e.Keys(t), t.TempDir()
	exported := filepath.Join(dir, "probe.bzImage")
	if o := e2e.Tenon(t, "export", path, "--format", "kernel", "-o", exported, "--cert", keys+"/ca.crt"); o.Code != 0 {
		t.Fatal(o)
	}
	accepted := func(file string) map[string]bool {
		return map[string]bool{
			"sbverify":     e2e.Execute(exec.Command("sbverify", "--cert", keys+"/ca.crt", file)).Code == 0,
			"osslsigncode": e2e.Execute(exec.Command("osslsigncode", "verify", "-CAfile", keys+"/ca.crt", file)).Code == 0,
		}
	}
	for tool, ok := range accepted(exported) {
		if !ok {
			t.Errorf("%s refuses the exported kernel", tool)
		}
	}
	data := e2e.Must(os.ReadFile(exported))
	b := e2e.Must(bundle.Open(t.Context(), path))
	defer b.Close()
	size, blob := int(b.Size(bundle.KernelType)), filepath.Join(path, "blobs/sha256", b.LayerDigest(bundle.KernelType).Hex)
	pe := int(data[0x3c]) | int(data[0x3d])<<8
	checksum, table := pe+24+64, pe+24+144
	kernel := e2e.Must(os.ReadFile(blob))
	skipped := []int{checksum, checksum + 3, table, table + 7}
	hashed := []int{1, 0x40, 0x1f1, pe + 4, checksum - 1, checksum + 4, table - 1, table + 8, size / 2, size - 1}
	for at := size / 7; at < size; at += size / 7 {
		hashed = append(hashed, at)
	}
	for _, at := range append(skipped, hashed...) {
		if slices.Contains(hashed, at) {
			flipped := filepath.Join(dir, "flipped")
			if err := os.WriteFile(flipped, e2e.Flip(data, at), 0o600); err != nil {
				t.Fatal(err)
			}
			for tool, ok := range accepted(flipped) {
				if ok {
					t.Errorf("byte %d flipped: %s accepts it", at, tool)
				}
			}
		}
		if err := os.WriteFile(blob, e2e.Flip(kernel, at), 0o600); err != nil {
			t.Fatal(err)
		}
		verify(t, path, "")
	}
	if err := os.WriteFile(blob, kernel, 0o600); err != nil {
		t.Fatal(err)
	}

	t.Run("dir", func(t *testing.T) {
		out := filepath.Join(dir, "out")
		if o := e2e.Tenon(t, "export", path, "--format", "dir", "-o", out); o.Code != 0 {
			t.Fatal(o)
		}
		if !bytes.Equal(e2e.Must(os.ReadFile(out+"/bzImage")), data) {
			t.Error("another kernel than alone")
		}
		o := e2e.Execute(exec.Command("openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", out+"/statement.p7s",
			"-content", out+"/statement", "-CAfile", keys+"/ca.crt", "-purpose", "any", "-out", "/dev/null"))
		if o.Code != 0 {
			t.Error(o)
		}
		before := len(e2e.Must(os.ReadDir(dir)))
		if o := e2e.Tenon(t, "export", path, "--format", "dir", "-o", out); o.Code != cli.ExitFailed || !strings.Contains(o.Stderr, "exists") || len(e2e.Must(os.ReadDir(dir))) != before {
			t.Error(o)
		}
	})
	t.Run("two signers", func(t *testing.T) {
		others := filepath.Join(dir, "others")
		for _, args := range [][]string{{"key", "create", others, "--name", "other"}, {"sign", path, "--key", others + "/signing.key"}} {
			if o := e2e.Tenon(t, args...); o.Code != 0 {
				t.Fatal(o)
			}
		}
		if o := e2e.Tenon(t, "export", path, "-o", exported); o.Code != cli.ExitFailed || !strings.Contains(o.Stderr, "hint: choose whose") {
			t.Error(o)
		}
		for _, first := range []string{keys, others} {
			if o := e2e.Tenon(t, "export", path, "-o", exported, "--cert", first+"/ca.crt"); o.Code != 0 {
				t.Fatal(o)
			}
			o := e2e.Execute(exec.Command("sbverify", "--list", exported))
			_, list, _ := strings.Cut(o.Stdout, "signature 1")
			subjects := []int{strings.Index(list, "tenon development signing"), strings.Index(list, "other signing")}
			if subjects[0] < 0 || subjects[1] < 0 || (subjects[0] < subjects[1]) != (first == keys) {
				t.Errorf("%s first: %s", first, o)
			}
		}
	})
	t.Run("over a FIFO", func(t *testing.T) {
		fifo := filepath.Join(dir, "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		o := e2e.Tenon(t, "export", path, "-o", fifo, "--cert", keys+"/ca.crt")
		if info := e2e.Must(os.Lstat(fifo)); o.Code != cli.ExitFailed || info.Mode().Type() != os.ModeNamedPipe || !strings.Contains(o.Stderr, "writing \""+fifo+"\": exists and is not a regular file") {
			t.Error(o)
		}
	})
	t.Run("for nobody who signed", func(t *testing.T) {
		stranger := filepath.Join(dir, "stranger")
		if o := e2e.Tenon(t, "key", "create", stranger); o.Code != 0 {
			t.Fatal(o)
		}
		if o := e2e.Tenon(t, "export", path, "-o", dir+"/none", "--cert", stranger+"/ca.crt"); o.Code != cli.ExitRefused || !strings.Contains(o.Stderr, "unknown authority") {
			t.Error(o)
		}
	})
	t.Run("unsigned", func(t *testing.T) {
		if o := e2e.Tenon(t, "export", e2e.Probe(t), "-o", dir+"/unsigned"); o.Code != cli.ExitRefused || !strings.Contains(o.Stderr, "not signed") {
			t.Error(o)
		}
		o := e2e.Tenon(t, "export", e2e.Probe(t), "-o", dir+"/unsigned", "--allow-unsigned")
		got := e2e.Must(os.ReadFile(dir + "/unsigned"))
		copy(got[checksum:], kernel[checksum:checksum+4]) // it is made right, and nobody's signature covers it
		if o.Code != 0 || !bytes.Equal(got, kernel) {
			t.Error(o)
		}
	})
}

// TestE2EMutations changes the slot, the header, the payload and the initramfs, byte by byte:
// in a signed bundle, and in one that is made anew of what was changed.
func TestE2EMutations(t *testing.T) {
	path, digest := e2e.SignedProbe(t)
	b := e2e.Must(bundle.Open(t.Context(), path))
	defer b.Close()
	kernel, initramfs := e2e.Must(b.ReadLayer(bundle.KernelType)), e2e.Must(b.ReadLayer(bundle.InitramfsType))
	slot := bytes.Index(kernel, []byte(seal.Magic))
	payload := (1+int(kernel[0x1f1]))*512 + int(binary.LittleEndian.Uint32(kernel[0x248:]))
	type mutation struct {
		what  string
		layer types.MediaType
		at    int
	}
	var all []mutation
	for i := range len(seal.Magic) + 8 + len(seal.Digest{}) {
		all = append(all, mutation{"slot", bundle.KernelType, slot + i})
	}
	for i := range 32 {
		all = append(all,
			mutation{"header", bundle.KernelType, 0x1f1 + 3*i},
			mutation{"payload", bundle.KernelType, payload + i*(len(kernel)-payload)/32},
			mutation{"initramfs", bundle.InitramfsType, i * (len(initramfs) - 1) / 31})
	}
	known := 0 // without a signature
	for _, m := range all {
		file := filepath.Join(path, "blobs/sha256", b.LayerDigest(m.layer).Hex)
		before := e2e.Must(os.ReadFile(file))
		changed := e2e.Flip(before, m.at)
		e2e.WriteFile(t, file, changed)
		verify(t, path, "")
		e2e.WriteFile(t, file, before)

		// Whoever makes everything anew has no signature. The seal tells still, where it can:
		// what else is in the kernel only a signature knows.
		again := *b.Manifest
		c := bundle.Content{Manifest: &again, Fidelity: e2e.Must(b.ReadLayer(bundle.FidelityType))}
		dir := t.TempDir()
		for mt, into := range map[types.MediaType]*string{bundle.KernelType: &c.Kernel, bundle.InitramfsType: &c.Initramfs, bundle.ConfigType: &c.Config, bundle.SystemMapType: &c.SystemMap} {
			data := e2e.Must(b.ReadLayer(mt))
			if mt == m.layer {
				data = changed
			}
			if mt == bundle.InitramfsType {
				again.Initramfs.Digest = fmt.Sprintf("sha256:%x", sha256.Sum256(data))
			}
			*into = e2e.WriteFile(t, filepath.Join(dir, filepath.Base(string(mt))), data)
		}
		anew := e2e.Must(bundle.New(c))
		if err := anew.Save(t.Context(), dir+"/anew.tenon", nil); err != nil {
			t.Fatal(err)
		}
		v, err := loader.Verify(t.Context(), dir+"/anew.tenon", loader.Policy{AllowUnsigned: true}, nil)
		switch {
		case errors.Is(err, seal.ErrImage), errors.Is(err, seal.ErrOther):
			known++
		case err != nil:
			t.Error(err)
		default:
			if err := v.Close(); err != nil || m.what == "slot" || m.what == "initramfs" {
				t.Errorf("%s, byte %d: it is taken, %v", m.what, m.at, err)
			}
		}
	}
	t.Logf("%d mutations refused, %d of them also in a bundle that was made anew", len(all), known)
	verify(t, path, digest)
}

// registry is Debian's docker-registry on a loopback address.
type registry struct {
	host string
	env  []string // what a client needs to reach it
}

// startRegistry starts a registry, with TLS or with credentials if asked for.
func startRegistry(t *testing.T, tls, credentials bool) registry {
	t.Helper()
	dir := t.TempDir()
	r := registry{host: fmt.Sprintf("127.0.0.1:%d", e2e.FreePort(t))}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s/data}}\nhttp:\n  addr: %s\n", dir, r.host)
	if tls {
		cert, key := selfSigned(t)
		config += fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", write("tls.crt", cert), write("tls.key", key))
		r.env = append(r.env, "SSL_CERT_FILE="+dir+"/tls.crt")
	}
	if credentials {
		hash := e2e.Must(bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost))
		config += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", write("htpasswd", fmt.Appendf(nil, "ci:%s\n", hash)))
		auth := base64.StdEncoding.EncodeToString([]byte("ci:secret"))
		write("config.json", fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, r.host, auth))
		r.env = append(r.env, "DOCKER_CONFIG="+dir)
	}
	cmd := exec.Command("docker-registry", "serve", write("config.yml", []byte(config)))
	cmd.Stderr = &e2e.Running{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 100 {
		if conn, err := net.Dial("tcp", r.host); err == nil {
			conn.Close()
			return r
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("the registry does not answer: %s", cmd.Stderr)
	return r
}

func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	k := e2e.Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der := e2e.Must(x509.CreateCertificate(rand.Reader, template, template, k.Public(), k))
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: e2e.Must(x509.MarshalPKCS8PrivateKey(k))})
}

func (r registry) tenon(t *testing.T, args ...string) e2e.Outcome {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), e2e.Program(t, "tenon"), args...)
	cmd.Env = append(os.Environ(), r.env...)
	return e2e.Execute(cmd)
}

// TestE2ERegistry pushes from one folder, pulls in another, and runs.
func TestE2ERegistry(t *testing.T) {
	path, digest := e2e.SignedProbe(t)
	for _, tls := range []bool{false, true} {
		for _, credentials := range []bool{false, true} {
			t.Run(fmt.Sprintf("tls=%v credentials=%v", tls, credentials), func(t *testing.T) {
				r := startRegistry(t, tls, credentials)
				ref, out := r.host+"/team/probe:1.4", filepath.Join(t.TempDir(), "pulled")
				if o := r.tenon(t, "push", path, ref); o.Code != 0 || strings.TrimSpace(o.Stdout) != r.host+"/team/probe@"+digest {
					t.Fatal(o)
				}
				for _, from := range []string{ref, r.host + "/team/probe@" + digest} {
					if o := r.tenon(t, "pull", from, "-o", out); o.Code != 0 || strings.TrimSpace(o.Stdout) != digest {
						t.Fatal(o)
					}
					if o := e2e.Execute(exec.Command("diff", "-r", path, out)); o.Code != 0 {
						t.Error(o)
					}
				}
				verify(t, out, digest)
				if o := r.tenon(t, "verify", ref, "--key", e2e.Keys(t)+"/signing.pub"); o.Code != 0 {
					t.Error(o)
				}
				if o := e2e.Run(t, out, "-e", "PROBE=exit:7"); o.Code != 7 {
					t.Error(o)
				}
				// What a stranger's machine lacks.
				bare := e2e.Tenon(t, "pull", ref, "-o", out+"2")
				switch {
				case tls && (bare.Code != cli.ExitFailed || !strings.Contains(bare.Stderr, "hint: name the file of the registry's CA in $SSL_CERT_FILE")):
					t.Error(bare)
				case !tls && credentials && (bare.Code != cli.ExitFailed || !strings.Contains(bare.Stderr, "hint: 'docker login HOST'")):
					t.Error(bare)
				}
				if o := r.tenon(t, "pull", r.host+"/team/probe:nosuch", "-o", out+"2"); o.Code != cli.ExitFailed || !strings.Contains(o.Stderr, "MANIFEST_UNKNOWN") {
					t.Error(o)
				}
				if left := e2e.Must(os.ReadDir(filepath.Dir(out))); len(left) != 1 && (tls || credentials) {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
	t.Run("sign where it lies", func(t *testing.T) {
		r := startRegistry(t, false, false)
		ref := r.host + "/probe:1"
		for _, args := range [][]string{{"push", e2e.Probe(t), ref}, {"sign", ref, "--key", e2e.Keys(t) + "/signing.key"}} {
			if o := e2e.Tenon(t, args...); o.Code != 0 {
				t.Fatal(o)
			}
		}
		verify(t, ref, digest)
	})
	t.Run("build --push", func(t *testing.T) {
		r := startRegistry(t, false, false)
		_, got := e2e.Build(t, "-r", e2e.ProbeRecipe(), "--name", "probe", "--key", e2e.Keys(t)+"/signing.key", "-t", r.host+"/probe:1", "--push", e2e.Image(t, nil, e2e.ProbeFiles...))
		verify(t, r.host+"/probe:1", got)
	})
}

// TestE2ECopies copies a signed bundle with tools that others wrote, as
// docs/bundle.md says.
func TestE2ECopies(t *testing.T) {
	path, digest := e2e.SignedProbe(t)
	signatures := strings.Replace(digest, ":", "-", 1)
	crane := filepath.Join(t.TempDir(), "crane")
	if o := e2e.Execute(exec.Command("go", "build", "-o", crane, "github.com/google/go-containerregistry/cmd/crane")); o.Code != 0 {
		t.Fatal(o)
	}
	shell := func(t *testing.T, line string, args ...string) {
		t.Helper()
		if o := e2e.Execute(exec.Command("sh", append([]string{"-ec", line}, args...)...)); o.Code != 0 {
			t.Fatal(o)
		}
	}
	r := startRegistry(t, false, false)
	dir := t.TempDir()
	t.Run("skopeo", func(t *testing.T) {
		const copies = `copy() { skopeo copy -q --src-tls-verify=false --dest-tls-verify=false --all "$1:$3" "$2:$3"; }; copy "$0" "$1" probe; copy "$0" "$1" "$2"`
		shell(t, copies, "oci:"+path, "oci:"+dir+"/layout", signatures)
		verify(t, dir+"/layout", digest)
		shell(t, copies, "oci:"+dir+"/layout", "docker://"+r.host+"/skopeo/probe", signatures)
		verify(t, r.host+"/skopeo/probe:probe", digest)
		shell(t, copies, "docker://"+r.host+"/skopeo/probe", "oci:"+dir+"/back", signatures)
		verify(t, dir+"/back", digest)
		if o := e2e.Tenon(t, "pull", dir+"/back", "-o", "oci-archive:"+dir+"/archive"); o.Code != 0 {
			t.Fatal(o)
		}
		shell(t, copies, "oci-archive:"+dir+"/archive", "oci:"+dir+"/unpacked", signatures)
		verify(t, dir+"/unpacked", digest)
	})
	t.Run("crane", func(t *testing.T) {
		if o := e2e.Tenon(t, "push", path, r.host+"/from/probe:probe"); o.Code != 0 {
			t.Fatal(o)
		}
		shell(t, `"$0" copy "$1:probe" "$2:probe"; "$0" copy "$1:$3" "$2:$3"`, crane, r.host+"/from/probe", r.host+"/crane/probe", signatures)
		verify(t, r.host+"/crane/probe:probe", digest)
	})
	t.Run("without the signatures", func(t *testing.T) {
		shell(t, `skopeo copy -q "oci:$0:probe" "oci:$1:probe"`, path, dir+"/bare")
		verify(t, dir+"/bare", "")
	})
	if o := e2e.Tenon(t, "inspect", "--format", "json", dir+"/back"); o.Code != 0 || strings.Count(o.Stdout, `"covers"`) != len(signature.Kinds) {
		t.Error(o)
	}
}
