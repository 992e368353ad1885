// SPDX-License-Identifier: Apache-2.0

// Command mortise runs bundles on this host, each as a kernel of its own on CPUs and
// memory that nobody else has.
package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/engine"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/qemu"
)

// app is what all verbs share.
type app struct {
	*cli.App
	root, config string // flags

	host hostConfig // after setUp
}

func main() {
	a := newApp(os.Stdout, os.Stderr)
	a.Main(a.newRootCmd())
}

func newApp(stdout, stderr io.Writer) *app {
	a := &app{App: cli.New("mortise", stdout, stderr)}
	a.Hint, a.Failed = hint, map[string]int{"run": cli.ExitRun}
	return a
}

func (a *app) newRootCmd() *cobra.Command {
	verify := cli.NewVerifyCmd(a.App)
	cmd := a.Root("Run bundles as kernels of their own, on CPUs and memory that nobody else has",
		newRunCmd(a), newCreateCmd(a), newStartCmd(a), newStopCmd(a), newKillCmd(a), newRmCmd(a), newPsCmd(a), newInspectCmd(a),
		newLogsCmd(a), newConsoleCmd(a), newResizeCmd(a), newPlanCmd(a), newInfoCmd(a), newGCCmd(a), verify)
	f := cmd.PersistentFlags()
	f.StringVar(&a.root, "root", instance.DefaultDir, "directory of what runs on this host")
	f.StringVar(&a.config, "config", "", "configuration of this host (default "+defaultConfig+", if there is one)")
	cmd.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		a.host, err = readConfig(a.config)
		return err
	}
	return cmd
}

// engine is this host, or another one's recording, which nothing runs on.
func (a *app) engine(root alloc.Root) *engine.Engine {
	return &engine.Engine{
		Dir: a.root, Root: root, Reserve: a.host.reserve, Log: a.Log,
		Backends: []loader.Backend{&qemu.Backend{Accel: a.host.accel, Log: a.Log}},
	}
}

// here is this host.
func (a *app) here() *engine.Engine { return a.engine(alloc.Dir("/")) }
