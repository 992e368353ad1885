// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"crypto"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/tenon-build/tenon/signer"
	"github.com/tenon-build/tenon/signer/authenticode"
	"github.com/tenon-build/tenon/testdata/e2e"
	"github.com/tenon-build/tenon/testdata/judge"
	"github.com/tenon-build/tenon/testdata/judge/uefi"
)

// Firmware is what boots a machine.
type Firmware int

// With UEFISecure, Secure Boot is on and Authority is all that is trusted: the machine's
// kernel, which it signed, is locked down, and has its certificate in .platform.
const (
	BIOS Firmware = iota
	UEFI
	UEFISecure
)

const ovmf = "/usr/share/OVMF/OVMF_"

// Authority is the test CA. It signs by itself, as an authority never should.
func Authority(t e2e.T) *signer.Key {
	t.Helper()
	chain, err := cryptoutils.LoadCertificatesFromPEM(bytes.NewReader(judge.Certificate))
	if err != nil {
		t.Fatal(err)
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(judge.Key, cryptoutils.SkipPassword)
	if err != nil {
		t.Fatal(err)
	}
	return &signer.Key{Signer: key.(crypto.Signer), Chain: chain}
}

// Options are QEMU's.
func (f Firmware) Options(t e2e.T) (args []string) {
	t.Helper()
	if f == BIOS {
		return []string{"-machine", "q35"}
	}
	code, machine := ovmf+"CODE_4M.fd", "q35"
	vars, err := os.ReadFile(ovmf + "VARS_4M.fd")
	if err != nil {
		t.Fatal(err)
	}
	if f == UEFISecure {
		code, machine = ovmf+"CODE_4M.secboot.fd", "q35,smm=on"
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on")
		store, err := uefi.New(vars)
		if err != nil {
			t.Fatal(err)
		}
		store.Secure(Authority(t).Chain[0].Raw)
		vars = store.Bytes()
	}
	file := filepath.Join(t.TempDir(), "vars.fd")
	write(t, file, vars)
	return append(args, "-machine", machine,
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+code,
		"-drive", "if=pflash,unit=1,format=raw,file="+file)
}

// sign signs a kernel where it has to be.
func (f Firmware) sign(t e2e.T, kernel string) (signed string) {
	t.Helper()
	if f != UEFISecure {
		return kernel
	}
	signed = filepath.Join(t.TempDir(), "vmlinuz")
	write(t, signed, signKernel(t, Authority(t), kernel))
	return signed
}

func write(t e2e.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// signKernel puts a signature in the place of those that a kernel has.
func signKernel(t e2e.T, key *signer.Key, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data = append(data, make([]byte, -len(data)&7)...)
	for _, sign := range []bool{false, true} {
		image, err := authenticode.Parse(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		var signatures [][]byte
		if sign {
			digest, err := image.Digest(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			signature, err := authenticode.Sign(key, digest)
			if err != nil {
				t.Fatal(err)
			}
			signatures = append(signatures, signature)
		}
		var out bytes.Buffer
		if err := image.Attach(&out, signatures...); err != nil {
			t.Fatal(err)
		}
		data = out.Bytes()
	}
	return data
}
