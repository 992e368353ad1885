// SPDX-License-Identifier: Apache-2.0

// Command mortise runs bundles on this host, each as a kernel of its own on CPUs and
// memory that nobody else has.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/cmd/internal/cli"
	"github.com/tenon-build/tenon/loader"
	"github.com/tenon-build/tenon/loader/alloc"
	"github.com/tenon-build/tenon/loader/cokernel"
	"github.com/tenon-build/tenon/loader/engine"
	"github.com/tenon-build/tenon/loader/instance"
	"github.com/tenon-build/tenon/loader/qemu"
	"github.com/tenon-build/tenon/signer/ownership"
)

// app is what all verbs share.
type app struct {
	*cli.App
	root, config string // flags

	host     hostConfig // as the configuration says
	sysroot  alloc.Root // where this host's /sys and /proc are
	backends []loader.Backend
	tell     time.Duration // see engine.Engine
}

func main() {
	// What a shell or a CI job left open is nothing for the machines that run here.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // since Linux 5.11
	a := newApp(os.Stdout, os.Stderr)
	a.Main(a.newRootCmd())
}

func newApp(stdout, stderr io.Writer) *app {
	a := &app{App: cli.New("mortise", stdout, stderr), sysroot: alloc.Dir("/")}
	a.Guarded = true
	a.Hint, a.Failed = hint, map[string]int{"run": cli.ExitRun}
	return a
}

// unconfigured are the verbs that go on where the configuration is refused: what runs can always
// be looked at and ended.
var unconfigured = []string{"ps", "inspect", "logs", "console", "stop", "kill", "rm"}

func (a *app) newRootCmd() *cobra.Command {
	verify := cli.NewVerifyCmd(a.App)
	check := verify.RunE
	verify.RunE = func(cmd *cobra.Command, args []string) error {
		defer a.during("verifying " + args[0])()
		return check(cmd, args)
	}
	reaching := []*cobra.Command{newRunCmd(a), newCreateCmd(a), newPlanCmd(a), verify}
	a.ReachesRegistries(reaching...)
	cmd := a.Root("Run bundles as kernels of their own, on CPUs and memory that nobody else has",
		append(reaching, newStartCmd(a), newStopCmd(a), newKillCmd(a), newRmCmd(a), newPsCmd(a), newInspectCmd(a),
			newLogsCmd(a), newConsoleCmd(a), newResizeCmd(a), newInfoCmd(a), newGCCmd(a))...)
	f := cmd.PersistentFlags()
	f.StringVar(&a.root, "root", instance.DefaultDir, "directory of what runs on this host")
	f.StringVar(&a.config, "config", "", "configuration of this host (default "+defaultConfig+", if there is one)")
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) (err error) {
		if a.host, err = readConfig(a.config); err != nil {
			if !slices.Contains(unconfigured, cmd.Name()) {
				return err
			}
			a.Log.Warn(cli.Escape(err.Error()) + "; going on without it")
		}
		if a.root, err = filepath.Abs(a.root); err != nil {
			return err
		}
		if err := ownership.CheckParents(a.root); errors.Is(err, ownership.ErrUnsafe) {
			return fmt.Errorf("--root %s: %w", a.root, err)
		}
		a.Policy, a.State, a.RegistryConfig = a.host.policy, a.host.state, a.host.registries
		if a.backends == nil {
			a.backends = []loader.Backend{&qemu.Backend{Accel: a.host.accel, Log: a.Log}, &cokernel.Backend{}}
		}
		return nil
	}
	return cmd
}

// here is this host.
func (a *app) here() *engine.Engine {
	return &engine.Engine{Dir: a.root, Root: a.sysroot, Reserve: a.host.reserve, Backends: a.backends, Log: a.Log, Tell: a.tell}
}

// during says every ten seconds what is being done, until stop is called.
func (a *app) during(what string) (stop func()) {
	return a.here().Waiting(func() string { return cli.Printable(what) })
}

// accept verifies a bundle.
func (a *app) accept(ctx context.Context, ref string, t loader.Trust, readOnly bool) (*loader.Verified, error) {
	defer a.during("verifying " + ref)()
	return a.Accept(ctx, ref, t, readOnly)
}

// there is the host of a recording, on which nothing runs.
func (a *app) there(recording string) (*engine.Engine, error) {
	f, err := os.Open(recording)
	if err != nil {
		return nil, fmt.Errorf("recording: %w", err)
	}
	defer f.Close()
	root, err := alloc.Replay(f)
	if err != nil {
		return nil, fmt.Errorf("recording %q: %w", recording, err)
	}
	e := a.here()
	e.Dir, e.Root = "", root
	return e, nil
}
