// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tenon-build/tenon/builder/bundle/limit"
)

// TestDocs holds docs/bundle.md to the code: every blob with its limit.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{
		ArtifactType, AuthenticodeType, StatementType, SigstoreType, CertificatesAnnotation,
		fmt.Sprintf("%d signatures", limit.Signatures), fmt.Sprintf("at most %d MiB", limit.Document>>20),
		fmt.Sprintf("%d other referrers, of at most %d blobs of %d GiB", limit.Attachments, limit.AttachedBlobs, limit.AttachedBlob>>30),
	} {
		if !strings.Contains(string(doc), word) {
			t.Errorf("no %s", word)
		}
	}
	for mt, most := range limits {
		size := fmt.Sprintf("%d MiB", most>>20)
		if most >= 1<<30 {
			size = fmt.Sprintf("%d GiB", most>>30)
		}
		if row := fmt.Sprintf("| `%s` | %s |", mt, size); !strings.Contains(string(doc), row) {
			t.Errorf("no row ends in %q", row)
		}
	}
}
