// SPDX-License-Identifier: Apache-2.0

// Command tenon turns an OCI image into a signed bundle of a minimal initramfs
// and a kernel tailored to it.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
)

// Exit codes of diff.
const (
	exitDiffer  = 1 // as diff(1)
	exitTrouble = 2 // a failure of ours
)

// failed are the exit codes of failures, where a verb has its own.
var failed = map[string]int{"run": cli.ExitRun, "diff": exitTrouble}

// app is what all commands share.
type app struct {
	*cli.App
	screen *screen // what Stderr is
}

func main() {
	a := newApp(os.Stdout, os.Stderr)
	a.Main(a.newRootCmd())
}

func newApp(stdout, stderr io.Writer) *app {
	s := &screen{w: stderr}
	a := &app{cli.New("tenon", stdout, s), s}
	a.Hint, a.Failed, a.Working = hint, failed, a.working
	a.RegistryConfig = cli.FindRegistryConfig()
	return a
}

func (a *app) newRootCmd() *cobra.Command {
	reaching := []*cobra.Command{
		newBuildCmd(a), newRootfsCmd(a), newSignCmd(a), cli.NewVerifyCmd(a.App), newRunCmd(a), newInspectCmd(a), newDiffCmd(a),
		newPushCmd(a), newPullCmd(a), newExportCmd(a),
	}
	a.ReachesRegistries(reaching...)
	return a.Root("Turn an OCI image into a minimal initramfs and a kernel tailored to it",
		append(reaching, newKeyCmd(a), newRecipeCmd(a))...)
}
