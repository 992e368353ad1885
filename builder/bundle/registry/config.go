// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/tenon-build/tenon/signer/ownership"
	"github.com/tenon-build/tenon/signer/regular"
	"github.com/tenon-build/tenon/signer/stricttoml"
)

// host is what a configuration says of one registry.
type host struct {
	plainHTTP bool
	certDir   string        // empty: docker's
	mirrors   []string      // HOST, or HOST/PATH
	timeout   time.Duration // 0: the default
}

// file is the form of a configuration.
type file struct {
	Version  int `toml:"version"` // 1
	Registry []struct {
		Host      string   `toml:"host"`
		PlainHTTP bool     `toml:"plain_http"`
		CertDir   string   `toml:"cert_dir"`
		Mirrors   []string `toml:"mirrors"`
		Timeout   string   `toml:"timeout"` // "5m"
	} `toml:"registry"`
}

// maxFile is the largest configuration or certificate, in bytes.
const maxFile = 1 << 20

// readConfig reads a configuration. Paths in it are relative to its directory.
func (c *Client) readConfig(path string) (map[string]host, error) {
	data, err := c.read(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration of registries: %w", err)
	}
	hosts, err := parseConfig(data, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("configuration of registries %s: %w", path, err)
	}
	return hosts, nil
}

// read reads a file, which nobody else may be able to change where the Client is guarded.
func (c *Client) read(path string) ([]byte, error) {
	if c.settings.Guarded {
		if err := ownership.Check(path); err != nil {
			return nil, err
		}
	}
	return regular.Read(path, maxFile)
}

func parseConfig(data []byte, dir string) (map[string]host, error) {
	var f file
	if err := stricttoml.Decode(data, &f); err != nil {
		return nil, err
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("version %d: this program reads version 1", f.Version)
	}
	hosts := map[string]host{}
	for n, r := range f.Registry {
		at := fmt.Sprintf("registry %d (%q)", n+1, r.Host)
		registry, err := checkHost(r.Host)
		if err != nil {
			return nil, fmt.Errorf("%s: host: %w", at, err)
		}
		if _, twice := hosts[registry]; twice {
			return nil, fmt.Errorf("%s: there is another one of this host", at)
		}
		for _, mirror := range r.Mirrors {
			host, path, deeper := strings.Cut(mirror, "/")
			mirrored, err := checkHost(host)
			if err == nil && deeper {
				_, err = name.NewRepository(mirrored + "/" + path + "/name")
			}
			if err == nil && mirrored == registry && !deeper {
				err = errors.New("it is the registry itself")
			}
			if err != nil {
				return nil, fmt.Errorf("%s: mirror %q: %w", at, mirror, err)
			}
		}
		if r.CertDir != "" && !filepath.IsAbs(r.CertDir) {
			r.CertDir = filepath.Join(dir, r.CertDir)
		}
		var timeout time.Duration
		if r.Timeout != "" {
			if timeout, err = time.ParseDuration(r.Timeout); err != nil || timeout < time.Second {
				return nil, fmt.Errorf("%s: timeout: %q is no time of a second or more, such as 5m", at, r.Timeout)
			}
		}
		hosts[registry] = host{r.PlainHTTP, r.CertDir, r.Mirrors, timeout}
	}
	return hosts, nil
}

// checkHost returns a registry's name, and refuses what no reference begins with.
func checkHost(text string) (string, error) {
	if !HasHost(text + "/name") {
		return "", errors.New("is no registry: want a host name with a dot, or HOST:PORT, without https:// before it")
	}
	repo, err := name.NewRepository(text + "/name")
	if err != nil || repo.RepositoryStr() != "name" && repo.RepositoryStr() != "library/name" {
		return "", errors.New("is no registry: want HOST or HOST:PORT")
	}
	return canonical(repo.RegistryStr()), nil
}

// dockerCertificates is where docker looks for the certificates of a registry.
const dockerCertificates = "/etc/docker/certs.d"

// certificates reads a directory of certificates as docker does: every file NAME.crt is one
// of authorities to trust beside the system's, every NAME.cert with NAME.key is one to show.
// It returns nil where there are none.
func (c *Client) certificates(r name.Registry) (*tls.Config, error) {
	dir, named := c.settings.CertDir, true
	if dir == "" {
		dir = c.host(r).certDir
	}
	if dir == "" {
		known := r.RegistryStr()
		if known == name.DefaultRegistry {
			known = dockerHub
		}
		dir, named = filepath.Join(dockerCertificates, known), false
	}
	entries, err := os.ReadDir(dir)
	if !named && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("certificates of a registry: %w", err)
	}
	config, err := c.readCertificates(dir, entries, named)
	if err == nil && config == nil && named {
		err = errors.New("has no file NAME.crt, and no NAME.cert with NAME.key")
	}
	if err != nil {
		return nil, fmt.Errorf("certificates of a registry in %s: %w", dir, err)
	}
	return config, nil
}

// readCertificates passes over what docker may read and this user may not, unless the directory
// was named.
func (c *Client) readCertificates(dir string, entries []fs.DirEntry, named bool) (*tls.Config, error) {
	var config *tls.Config
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		stem, isAuthority := strings.CutSuffix(path, ".crt")
		if !isAuthority {
			var isClient bool
			if stem, isClient = strings.CutSuffix(path, ".cert"); !isClient {
				continue
			}
		}
		data, err := c.read(path)
		if err != nil && !named && errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if config == nil {
			roots, err := x509.SystemCertPool()
			if err != nil {
				return nil, err
			}
			config = &tls.Config{RootCAs: roots}
		}
		if isAuthority {
			if !config.RootCAs.AppendCertsFromPEM(data) {
				return nil, fmt.Errorf("%s holds no certificate in PEM form", e.Name())
			}
			continue
		}
		key, err := c.read(stem + ".key")
		if err != nil && !named && errors.Is(err, fs.ErrPermission) {
			continue
		}
		if err != nil {
			return nil, err
		}
		pair, err := tls.X509KeyPair(data, key)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		config.Certificates = append(config.Certificates, pair)
	}
	return config, nil
}
