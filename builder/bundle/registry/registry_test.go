// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tenon-build/tenon/signer/ownership"
)

// atHost has every name lead to a server's address, for as long as the test runs.
func atHost(t *testing.T, s *httptest.Server) {
	t.Helper()
	before := remote.DefaultTransport
	there := before.(*http.Transport).Clone()
	there.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Listener.Addr().String())
	}
	remote.DefaultTransport = there
	t.Cleanup(func() { remote.DefaultTransport = before })
	t.Setenv("DOCKER_CONFIG", t.TempDir())
}

func client(t *testing.T, s Settings) *Client {
	t.Helper()
	c, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// write writes a file below a new directory, and returns its path.
func write(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// get asks for a manifest.
func (c *Client) get(ctx context.Context, reference string) error {
	ref, err := c.Parse(reference)
	if err != nil {
		return err
	}
	return c.FromMirrors(ref, func(source name.Reference) error {
		options, err := c.Options(ctx, source.Context().Registry)
		if err == nil {
			_, err = remote.Get(source, options...)
		}
		return err
	})
}

// holding is a registry that has an image, team/web:1.
func holding(t *testing.T) http.Handler {
	t.Helper()
	h := fake.New(fake.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(h)
	defer s.Close()
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/team/web:1")
	if err == nil {
		err = remote.Write(ref, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A registry by host name over plain HTTP: only where that is wanted.
func TestPlainHTTP(t *testing.T) {
	s := httptest.NewServer(holding(t))
	defer s.Close()
	atHost(t, s)
	const ref = "registry.example/team/web:1"
	var notTLS tls.RecordHeaderError
	if err := client(t, Settings{}).get(t.Context(), ref); err == nil || !errors.As(err, &notTLS) && !strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		t.Errorf("without --plain-http: %v", err)
	}
	if err := client(t, Settings{PlainHTTP: true}).get(t.Context(), ref); err != nil {
		t.Errorf("with --plain-http: %v", err)
	}
	dir := t.TempDir()
	this := write(t, dir, "this.toml", "version = 1\n[[registry]]\nhost = \"registry.example\"\nplain_http = true\n")
	if err := client(t, Settings{Config: this}).get(t.Context(), ref); err != nil {
		t.Errorf("with plain_http: %v", err)
	}
	if err := client(t, Settings{Config: this}).get(t.Context(), "other.example/team/web:1"); err == nil {
		t.Error("with plain_http of another registry")
	}
}

// Credentials go to other machines with TLS alone, unless plain HTTP is asked for.
func TestPrivateAddress(t *testing.T) {
	served := 0
	h := holding(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	atHost(t, s)
	certs := t.TempDir()
	write(t, certs, "ca.crt", newPair(t).certificate)
	for _, test := range []struct {
		host     string
		settings Settings
		plain    bool
	}{
		{"10.1.2.3:5000", Settings{}, false},
		{"192.168.0.1:5000", Settings{}, false},
		{"127.0.0.1:5000", Settings{CertDir: certs}, false},
		{"10.1.2.3:5000", Settings{PlainHTTP: true}, true},
		{"127.0.0.1:5000", Settings{}, true},
		{"127.0.0.2:5000", Settings{}, true},
		{"localhost:5000", Settings{}, true},
		{"localhost", Settings{}, true},
		{"LOCALHOST:5000", Settings{}, true},
		{"k3d.localhost:5000", Settings{}, false},
		{"[::1]:5000", Settings{}, true},
	} {
		served = 0
		err := client(t, test.settings).get(t.Context(), test.host+"/team/web:1")
		if (err == nil) != test.plain || (served > 0) != test.plain {
			t.Errorf("%s, %+v: %v, %d requests", test.host, test.settings, err, served)
		}
		if err != nil && !errors.Is(err, ErrPlainHTTP) {
			t.Errorf("%s: %v", test.host, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	s := httptest.NewUnstartedServer(holding(t))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	atHost(t, s)
	const ref = "example.com/team/web:1" // the server's certificate names it
	dir := t.TempDir()
	certificate := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	key := newPair(t)
	write(t, dir, "certs/ca.crt", certificate)
	config := write(t, dir, "registries.toml", "version = 1\n[[registry]]\nhost = \"example.com\"\ncert_dir = \"certs\"\n")
	if err := client(t, Settings{}).get(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "x509") {
		t.Errorf("without the CA: %v", err)
	}
	if err := client(t, Settings{Config: config}).get(t.Context(), ref); err == nil || strings.Contains(err.Error(), "x509") {
		t.Errorf("without a client certificate: %v", err)
	}
	write(t, dir, "certs/client.cert", key.certificate)
	write(t, dir, "certs/client.key", key.private)
	for what, settings := range map[string]Settings{"cert_dir": {Config: config}, "--cert-dir": {CertDir: filepath.Join(dir, "certs")}} {
		if err := client(t, settings).get(t.Context(), ref); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, damage := range map[string]func(dir string){
		"no certificate in PEM form": func(dir string) { write(t, dir, "ca.crt", "none") },
		"client.key":                 func(dir string) { write(t, dir, "client.cert", key.certificate) },
		"has no file NAME.crt":       func(string) {},
	} {
		dir := t.TempDir()
		damage(dir)
		if err := client(t, Settings{CertDir: dir}).get(t.Context(), ref); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// A mirror is asked first, and one that fails does no harm.
func TestMirrors(t *testing.T) {
	registry, mirror := httptest.NewServer(holding(t)), httptest.NewServer(nil)
	defer registry.Close()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	var asked []string
	var have http.Handler
	mirror.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked = append(asked, r.URL.Path); have == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		have.ServeHTTP(w, r)
	})
	host, mirrorHost := strings.TrimPrefix(registry.URL, "http://"), strings.TrimPrefix(mirror.URL, "http://")
	config := write(t, t.TempDir(), "r.toml", "version = 1\n[[registry]]\nhost = \""+host+"\"\nmirrors = [\""+mirrorHost+"/cache\"]\n")
	if err := client(t, Settings{Config: config}).get(t.Context(), host+"/team/web:1"); err != nil || len(asked) == 0 {
		t.Errorf("%v, asked %q", err, asked)
	}
	have = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = strings.Replace(r.URL.Path, "/cache", "", 1)
		registry.Config.Handler.ServeHTTP(w, r)
	})
	asked = nil
	if err := client(t, Settings{Config: config}).get(t.Context(), host+"/team/web:1"); err != nil || asked[len(asked)-1] != "/v2/cache/team/web/manifests/1" {
		t.Errorf("%v, asked %q", err, asked)
	}
	registry.CloseClientConnections()
	registry.Close()
	if err := client(t, Settings{Config: config}).get(t.Context(), host+"/team/web:1"); err != nil {
		t.Errorf("without the registry: %v", err)
	}
	mirror.Close()
	if err := client(t, Settings{Config: config}).get(t.Context(), host+"/team/web:1"); err == nil || !strings.Contains(err.Error(), "; mirror "+mirrorHost+"/cache: ") {
		t.Errorf("without both: %v", err)
	}
}

// A registry that takes the connection and says nothing is given up, with TLS and without.
func TestSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, settings := range []Settings{{}, {PlainHTTP: true}} {
		settings.Silence = 300 * time.Millisecond
		begin := time.Now()
		err := client(t, settings).get(t.Context(), l.Addr().String()+"/team/web:1")
		if took := time.Since(begin); !errors.Is(err, ErrSilent) || took > 3*time.Second {
			t.Errorf("%+v: %v after %v", settings, err, took)
		}
	}
}

// An answer that comes a byte at a time is given up, in the head and in the body.
func TestSlow(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = w.Write([]byte(" "))
			_ = http.NewResponseController(w).Flush()
			time.Sleep(50 * time.Millisecond)
		}
	}))
	defer s.Close()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	begin := time.Now()
	err := client(t, Settings{Silence: 300 * time.Millisecond}).get(t.Context(), strings.TrimPrefix(s.URL, "http://")+"/team/web:1")
	if took := time.Since(begin); !errors.Is(err, ErrSilent) || took > 5*time.Second {
		t.Errorf("body: %v after %v", err, took)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for head := "HTTP/1.1 200 OK\r\nX-Slow: "; err == nil; head = "x" {
					_, err = c.Write([]byte(head))
					time.Sleep(50 * time.Millisecond)
				}
			}()
		}
	}()
	begin = time.Now()
	err = client(t, Settings{PlainHTTP: true, Silence: 300 * time.Millisecond}).get(t.Context(), l.Addr().String()+"/team/web:1")
	if took := time.Since(begin); err == nil || took > 20*time.Second {
		t.Errorf("head: %v after %v", err, took)
	}
}

// What mortise reads as root nobody else may change.
func TestGuarded(t *testing.T) {
	dir := t.TempDir()
	config := write(t, dir, "registries.toml", "version = 1\n")
	write(t, dir, "certs/ca.crt", newPair(t).certificate)
	get := func() error {
		c, err := New(Settings{Config: config, CertDir: filepath.Join(dir, "certs"), Guarded: true})
		if err == nil {
			_, err = c.Options(t.Context(), name.Registry{})
		}
		return err
	}
	if err := get(); err != nil {
		t.Error(err)
	}
	for _, file := range []string{"registries.toml", "certs", "certs/ca.crt"} {
		path := filepath.Join(dir, file)
		info, err := os.Stat(path)
		if err == nil {
			err = os.Chmod(path, info.Mode()|0o002)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := get(); !errors.Is(err, ownership.ErrUnsafe) || !strings.Contains(err.Error(), file+" has the mode") {
			t.Errorf("%s: %v", file, err)
		}
		if err := os.Chmod(path, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConfig(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"empty":             {"", "version 0"},
		"unknown key":       {"version = 1\n[[registry]]\nhost = \"a.b\"\ninsecure = true\n", `unknown key "registry.insecure"`},
		"no host":           {"version = 1\n[[registry]]\nplain_http = true\n", "is no registry"},
		"a name":            {"version = 1\n[[registry]]\nhost = \"redis\"\n", "is no registry"},
		"an address":        {"version = 1\n[[registry]]\nhost = \"https://a.b\"\n", "is no registry"},
		"a repository":      {"version = 1\n[[registry]]\nhost = \"a.b/team\"\n", "is no registry"},
		"twice":             {"version = 1\n[[registry]]\nhost = \"docker.io\"\n[[registry]]\nhost = \"index.docker.io\"\n", "another one of this host"},
		"mirror of itself":  {"version = 1\n[[registry]]\nhost = \"a.b\"\nmirrors = [\"a.b\"]\n", "it is the registry itself"},
		"a timeout of none": {"version = 1\n[[registry]]\nhost = \"a.b\"\ntimeout = \"0s\"\n", `timeout: "0s" is no time`},
		"mirror in capital": {"version = 1\n[[registry]]\nhost = \"a.b\"\nmirrors = [\"c.d/Team\"]\n", "Team"},
	} {
		if _, err := parseConfig([]byte(test.text), "/etc"); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	hosts, err := parseConfig([]byte("version = 1\n[[registry]]\nhost = \"docker.io\"\ncert_dir = \"hub\"\nmirrors = [\"m.example:5000/hub\", \"localhost:1\"]\ntimeout = \"5m\"\n"), "/etc/tenon")
	if h := hosts["index.docker.io"]; err != nil || h.timeout != 5*time.Minute || h.certDir != "/etc/tenon/hub" || len(h.mirrors) != 2 {
		t.Errorf("%+v, %v", hosts, err)
	}
	if _, err := New(Settings{Config: "/nowhere/registries.toml"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
