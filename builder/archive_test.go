// SPDX-License-Identifier: Apache-2.0

package builder

import (
	"bytes"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/tenon-build/tenon/builder/rootfs"
)

// The kernel's unpacker takes one frame, and a build's bytes do not depend on the
// machine.
func TestArchiveIsReproducible(t *testing.T) {
	tree := rootfs.New()
	r := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"a", "b/c", "d"} {
		data := make([]byte, 3<<20)
		for i := range data {
			data[i] = byte(r.ExpFloat64() * 8)
		}
		put(t, tree, name, data, 0o644)
	}
	var outputs [][]byte
	for _, procs := range []int{1, 2, 7, 1} {
		func() {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			var out bytes.Buffer
			a, err := newContent(tree).archive(t.Context(), &out, true, func(Stage, int64, int64) {})
			if err != nil || a.size != int64(out.Len()) {
				t.Fatalf("%+v, %v", a, err)
			}
			outputs = append(outputs, out.Bytes())
		}()
	}
	for i, o := range outputs {
		if !bytes.Equal(o, outputs[0]) {
			t.Errorf("output %d is another one", i)
		}
	}
	// Without what follows the first frame, all of the archive is there.
	z, err := zstd.NewReader(nil, zstd.IgnoreChecksum(false))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	if bytes.Count(outputs[0], []byte{0x28, 0xb5, 0x2f, 0xfd}) != 1 {
		t.Error("more than one frame")
	}
	if err := z.Reset(bytes.NewReader(outputs[0])); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, z); err != nil || n < 9<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
