// SPDX-License-Identifier: Apache-2.0

// Command mortise validates bundles on the host that is to run them, and shows
// what that host has.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
)

func main() {
	a := newApp(os.Stdout, os.Stderr)
	a.Main(newRootCmd(a))
}

func newApp(stdout, stderr io.Writer) *cli.App {
	a := cli.New("mortise", stdout, stderr)
	a.Hint = hint
	return a
}

func newRootCmd(a *cli.App) *cobra.Command {
	return a.Root("Validate bundles, and show the host that is to run them", cli.NewVerifyCmd(a), newInfoCmd(a))
}
