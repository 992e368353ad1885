// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Nobody is asked in tests.
func init() { terminal = "/nonexistent" }

// pipe returns a file descriptor from which text is read.
func pipe(t *testing.T, text string) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestPassphrase(t *testing.T) {
	key, err := filepath.Abs("../../signer/testdata/cosign.key")
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	if r := invoke(t, "key", "create", "keys", "--algorithm", "rsa-2048"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	for i, test := range []struct {
		name, fd, environment, cosign string
		want                          string // in the error
	}{
		{name: "by descriptor", fd: "correct horse\nmore"},
		{name: "by descriptor, without a line's end", fd: "correct horse"},
		{name: "by environment", environment: "correct horse"},
		{name: "by cosign's environment", cosign: "correct horse"},
		{name: "ours before cosign's", environment: "correct horse", cosign: "sesame"},
		{name: "the descriptor before the environment", fd: "sesame\n", environment: "correct horse", want: "the passphrase does not decrypt the private key"},
		{name: "with another line's end", fd: "correct horse\r\n"},
		{name: "empty", fd: "\n", want: "nothing was read"},
		{name: "large", fd: strings.Repeat("x", maxSecret+1), want: "longer than 4096 bytes"},
		{name: "none", want: "the private key is encrypted, and there is no passphrase"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(passphraseVariable, test.environment)
			t.Setenv(cosignVariable, test.cosign)
			args := []string{"key", "export", "keys", "--format", "tbs-p7", "--key", key, "-o", fmt.Sprint(i)}
			if test.fd != "" {
				args = append(args, "--passphrase-fd", fmt.Sprint(pipe(t, test.fd)))
			}
			r := invoke(t, args...)
			if (r.code == 0) != (test.want == "") || !strings.Contains(r.stderr, test.want) || strings.Contains(r.stderr, "sesame") {
				t.Errorf("%+v, want %q", r, test.want)
			}
			if test.want == "" && !strings.Contains(r.stderr, "its signatures will be refused (host: stock Debian 12 kernel") {
				t.Errorf("no warning: %s", r.stderr)
			}
		})
	}
	// Whoever names a descriptor wants an encrypted key.
	for _, fd := range []string{fmt.Sprint(pipe(t, "")), "-3"} {
		if r := invoke(t, "key", "create", "plain", "--passphrase-fd", fd); r.code == 0 || !strings.Contains(r.stderr, "--passphrase-fd "+fd+": ") {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat("plain"); err == nil {
			t.Error("a plain key was made")
		}
	}
	// One passphrase for the issuer's key and the one that is made.
	if r := invoke(t, "key", "create", "root", "--profile", "root", "--name", "root", "--passphrase-fd", fmt.Sprint(pipe(t, "x y\n"))); r.code != 0 || strings.Contains(r.stderr, "not encrypted") {
		t.Fatalf("%+v", r)
	}
	if r := invoke(t, "key", "create", "release", "--profile", "release", "--name", "release", "--issuer", "root", "--passphrase-fd", fmt.Sprint(pipe(t, "x y\n"))); r.code != 0 {
		t.Errorf("%+v", r)
	}
}

// openTerminal is a terminal at which somebody types text.
func openTerminal(t *testing.T, text string) *os.File {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	before := terminal
	terminal = fmt.Sprintf("/dev/pts/%d", n)
	t.Cleanup(func() { terminal = before })
	if _, err := keyboard.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return keyboard
}

func TestPrompt(t *testing.T) {
	t.Setenv(passphraseVariable, "not a PIN")
	keyboard := openTerminal(t, "1234\n")
	s := secrets{fd: -1}
	got, err := s.ask(t.Context())("PIN of pkcs11:object=x")
	if err != nil || string(got) != "1234" {
		t.Errorf("got %q, %v", got, err)
	}
	const want = "PIN of pkcs11:object=x: "
	shown, buf := "", make([]byte, 1000) // what was typed too early is shown as well
	for !strings.Contains(shown, want) {
		n, err := keyboard.Read(buf)
		if shown += string(buf[:n]); err != nil {
			t.Fatalf("shown: %q, %v", shown, err)
		}
	}
}

// Who gives up has a terminal that shows again what is typed.
func TestPromptInterrupted(t *testing.T) {
	keyboard := openTerminal(t, "")
	before, err := term.GetState(int(keyboard.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got, err := prompt(ctx, "passphrase"); got != nil || err == nil {
		t.Errorf("got %q, %v", got, err)
	}
	after, err := term.GetState(int(keyboard.Fd()))
	if err != nil || *after != *before {
		t.Errorf("the terminal is another: %v", err)
	}
}
