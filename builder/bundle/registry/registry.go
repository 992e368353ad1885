// SPDX-License-Identifier: Apache-2.0

// Package registry is how images and bundles are fetched from registries and pushed to them.
//
// In: settings, and a reference. Out: where to ask for it, and the options or the HTTP client
// to ask with: docker's credentials and certificates, mirrors, plain HTTP where it is wanted,
// time-outs and retries. Refused: a registry that is silent for a minute, or sends less than
// 1 KiB a second in one, answers that are larger than package limit allows, plain HTTP to other
// machines unless it is asked for, and a configuration that cannot be meant.
package registry

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Settings say how registries are reached, beside what their configuration says. The zero
// value does as docker does. Records of instances hold them; paths are absolute there.
type Settings struct {
	PlainHTTP bool          `json:"plainHTTP,omitempty"` // speak plain HTTP to every registry
	CertDir   string        `json:"certDir,omitempty"`   // directory of certificates for every registry; empty: docker's
	Config    string        `json:"config,omitempty"`    // configuration file; empty: none
	Fallback  string        `json:"-"`                   // configuration file where Config is empty; may be empty
	Silence   time.Duration `json:"-"`                   // how long a registry may be silent; 0: what the configuration says, else a minute
	Guarded   bool          `json:"-"`                   // refuse files that others than root and this user can change
}

// Client reaches registries.
type Client struct {
	settings Settings
	hosts    map[string]host // by name, as name.Registry has it

	mutex      sync.Mutex
	transports map[string]http.RoundTripper // by name
}

// New returns a Client, and reads the configuration file for it.
func New(s Settings) (*Client, error) {
	c := &Client{settings: s, transports: map[string]http.RoundTripper{}}
	var err error
	if config := cmp.Or(s.Config, s.Fallback); config != "" {
		c.hosts, err = c.readConfig(config)
	}
	return c, err
}

// Settings are those that the Client was made with.
func (c *Client) Settings() Settings { return c.settings }

type key struct{}

// NewContext returns a context that carries c to whoever opens an image or a bundle, as
// package oauth2 does with its HTTP client.
func NewContext(ctx context.Context, c *Client) context.Context {
	return context.WithValue(ctx, key{}, c)
}

// FromContext returns the Client that ctx carries, or one without settings.
func FromContext(ctx context.Context) *Client {
	if c, ok := ctx.Value(key{}).(*Client); ok {
		return c
	}
	c, _ := New(Settings{}) // fails with a configuration only
	return c
}

// Parse reads a reference: HOST/NAME with a tag or a digest.
func (c *Client) Parse(reference string) (name.Reference, error) {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	if r := ref.Context().Registry; !c.plain(r) && !loopback(r) {
		return ref, nil
	}
	return name.ParseReference(reference, name.Insecure) // which the library tries with TLS first
}

// FromMirrors calls open with where a reference is looked for: in the mirrors of its registry,
// in their order, then in the registry itself, until open succeeds. The error is the registry's,
// and says what each mirror's was.
func (c *Client) FromMirrors(ref name.Reference, open func(source name.Reference) error) error {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	var mirrors strings.Builder
	for _, mirror := range c.host(ref.Context().Registry).mirrors {
		source, err := c.Parse(mirror + "/" + ref.Context().RepositoryStr() + separator + ref.Identifier())
		if err == nil {
			err = open(source)
		}
		if err == nil {
			return nil
		}
		fmt.Fprintf(&mirrors, "; mirror %s: %s", mirror, err)
	}
	err := open(ref)
	if err != nil && mirrors.Len() > 0 {
		err = fmt.Errorf("%w%s", err, &mirrors)
	}
	return err
}

// Options are those with which package remote reaches a registry.
func (c *Client) Options(ctx context.Context, r name.Registry) ([]remote.Option, error) {
	t, err := c.transport(r)
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(t)}, err
}

// HTTP returns a client for requests about one repository, with a scope such as
// transport.PullScope.
func (c *Client) HTTP(ctx context.Context, repo name.Repository, scope string) (*http.Client, error) {
	t, err := c.transport(repo.Registry)
	if err != nil {
		return nil, err
	}
	auth, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
	if err != nil {
		return nil, err
	}
	t, err = transport.NewWithContext(ctx, repo.Registry, auth, transport.NewRetry(t), []string{repo.Scope(scope)})
	return &http.Client{Transport: t}, err
}

// host is what the configuration says of a registry.
func (c *Client) host(r name.Registry) host { return c.hosts[canonical(r.RegistryStr())] }

// canonical is the one spelling of a registry's name: hosts have no case, and 443 is the port
// anyway.
func canonical(registry string) string {
	return strings.TrimSuffix(strings.ToLower(registry), ":443")
}

func (c *Client) plain(r name.Registry) bool {
	return c.settings.PlainHTTP || c.host(r).plainHTTP
}

// patience is how long a registry may be silent.
func (c *Client) patience(r name.Registry) time.Duration {
	return cmp.Or(c.settings.Silence, c.host(r).timeout, time.Minute)
}

// loopback says whether a registry is on this machine, which plain HTTP then does not leave.
func loopback(r name.Registry) bool {
	host := strings.ToLower(r.RegistryStr())
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}

// transport is the one of a registry, so that its connections are used again.
func (c *Client) transport(r name.Registry) (http.RoundTripper, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if t, ok := c.transports[r.RegistryStr()]; ok {
		return t, nil
	}
	certificates, err := c.certificates(r)
	if err != nil {
		return nil, err
	}
	t := newTransport(certificates, c.patience(r))
	switch {
	case c.plain(r):
		t = oneScheme{t, r.RegistryStr(), "https"}
	case certificates != nil || !loopback(r):
		t = oneScheme{t, r.RegistryStr(), "http"}
	}
	c.transports[r.RegistryStr()] = t
	return t, nil
}

// HasHost says whether a reference begins with a registry's host, as docker tells it from a
// name on its own.
func HasHost(ref string) bool {
	host, _, ok := strings.Cut(ref, "/")
	return ok && !strings.HasPrefix(host, ".") && (strings.ContainsAny(host, ".:") || host == "localhost")
}

// Known returns the name that people know a repository by: Docker Hub is docker.io.
func Known(repo name.Repository) string {
	if repo.RegistryStr() == name.DefaultRegistry {
		return dockerHub + "/" + repo.RepositoryStr()
	}
	return canonical(repo.RegistryStr()) + "/" + repo.RepositoryStr()
}

const dockerHub = "docker.io"
