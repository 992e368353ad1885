// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/builder/bundle/registry"
)

// ReachesRegistries gives verbs the flags that say how registries are reached. What they say
// is in the context that the verbs run in.
func (a *App) ReachesRegistries(verbs ...*cobra.Command) {
	for _, cmd := range verbs {
		var s registry.Settings
		f := cmd.Flags()
		f.BoolVar(&s.PlainHTTP, "plain-http", false, "speak plain HTTP to registries, without TLS")
		f.StringVar(&s.CertDir, "cert-dir", "", "directory of certificates for registries: NAME.crt of CAs, NAME.cert and NAME.key to show (default /etc/docker/certs.d/HOST)")
		f.StringVar(&s.Config, "registries", "", "configuration of registries (TOML file)")
		cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
			for _, path := range []*string{&s.CertDir, &s.Config} { // what runs may be started again elsewhere
				if *path == "" {
					continue
				}
				var err error
				if *path, err = filepath.Abs(*path); err != nil {
					return err
				}
			}
			client, err := a.Registries(s)
			if err != nil {
				return err
			}
			cmd.SetContext(registry.NewContext(cmd.Context(), client))
			return nil
		}
	}
}

// Registries returns the client of the settings. Where they name no configuration, it is the
// command's own.
func (a *App) Registries(s registry.Settings) (*registry.Client, error) {
	s.Fallback, s.Guarded = a.RegistryConfig, a.Guarded
	return registry.New(s)
}

// FindRegistryConfig returns the first configuration of registries that is there: the user's,
// then the machine's. It is empty where there is none.
func FindRegistryConfig() string {
	var paths []string
	if dir, err := os.UserConfigDir(); err == nil {
		paths = append(paths, filepath.Join(dir, "tenon/registries.toml"))
	}
	for _, path := range append(paths, "/etc/tenon/registries.toml") {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// RegistryHint is the next step after an error of a registry; it is empty for others.
func RegistryHint(err error) string {
	var refused *transport.Error
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.Is(err, bundle.ErrAmbiguous):
		return "write ./PATH for the file, or docker://HOST/NAME:TAG for the registry"
	case errors.Is(err, registry.ErrNoReferrers):
		return "push to a registry that takes OCI 1.1 artifacts (docs/bundle.md lists some), or carry the bundle as a file: -o oci-archive:FILE"
	case errors.Is(err, registry.ErrSilent):
		return "is it the right host and port, and does a proxy or firewall lie between? Or give it longer, with timeout in the configuration of registries"
	case errors.As(err, &refused) && slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden}, refused.StatusCode):
		return "'docker login HOST' stores credentials, in $DOCKER_CONFIG if it is set"
	case errors.As(err, &refused) && refused.StatusCode == http.StatusTooManyRequests:
		return "the registry limits how often it is asked: wait, or 'docker login HOST' for a higher limit"
	case errors.As(err, &unknown):
		return "name the file of the registry's CA in $SSL_CERT_FILE, or put it into /etc/docker/certs.d/HOST/ca.crt or a --cert-dir"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "a registry that speaks plain HTTP is reached with --plain-http, or plain_http in the configuration of registries"
	}
	return ""
}
