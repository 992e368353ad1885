// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/builder/bundle"
	"github.com/tenon-build/tenon/cmd/internal/cli"
)

func newPushCmd(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "push BUNDLE HOST/NAME[:TAG]",
		Short: "Copy a bundle with its signatures to a registry",
		Long: `Copy a bundle, with its signatures and whatever else refers to it, to a
registry, and print where it is by digest. The tag is set last.

Credentials and certificates are docker's ('docker login', /etc/docker/certs.d).
A registry on this machine is also spoken to without TLS, others with --plain-http.
docs/bundle.md says what is known of which registry.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := a.push(cmd.Context(), args[0], args[1])
			if err == nil {
				_, err = fmt.Fprintln(a.Stdout, where)
			}
			return err
		},
	}
}

func (a *app) push(ctx context.Context, from, to string) (where string, err error) {
	stop := a.working()
	b, err := bundle.Open(ctx, from)
	stop()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	bars := newBars(a.screen)
	where, err = b.Push(ctx, to, func(done, total int64) { bars.update(stagePush, done, total) })
	bars.done(err == nil)
	if err != nil {
		return "", err
	}
	a.sayReferrers("pushed", b)
	repository, _, _ := strings.Cut(where, "@")
	if last := path.Base(repository); last != b.Manifest.Name {
		a.Log.Warn("hosts refuse a bundle of another name than they ask for, but with --expect-name or by their policy",
			"the bundle's name", b.Manifest.Name, "asked for", last)
	}
	return where, nil
}

func newPullCmd(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "pull BUNDLE [-o OUT]",
		Short: "Copy a bundle with its signatures from a registry",
		Long: `Copy a bundle, with its signatures and whatever else refers to it, to a
directory or archive, and print its digest.

BUNDLE is HOST/NAME:TAG or HOST/NAME@DIGEST; oci:DIR and oci-archive:FILE are
copied too. Signatures are carried, not checked: that is what verify does.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.pull(cmd.Context(), args[0], output) },
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "oci:DIR or oci-archive:FILE (default ./NAME.tenon)")
	return cmd
}

func (a *app) pull(ctx context.Context, from, out string) (err error) {
	stop := a.working()
	b, err := bundle.Open(ctx, from)
	stop()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if out == "" {
		out = b.Manifest.Name + ".tenon"
	}
	bars := newBars(a.screen)
	err = b.Save(ctx, out, func(done, total int64) { bars.update(stagePull, done, total) })
	bars.done(err == nil)
	if err != nil {
		return err
	}
	a.sayReferrers("pulled", b)
	_, err = fmt.Fprintln(a.Stdout, b.Digest)
	return err
}

func (a *app) sayReferrers(done string, b *bundle.Bundle) {
	var names []string
	for _, r := range b.Referrers() {
		names = append(names, kindName(r.Type))
	}
	with := "without signatures"
	if len(names) > 0 {
		with = "with " + strings.Join(names, ", ")
	}
	fmt.Fprintf(a.Stderr, "%s     %s, %s\n", done, b.Manifest.Name, cli.Printable(with))
}
