// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestDocs holds docs/bundle.md to the code: every blob with its limit.
func TestDocs(t *testing.T) {
	doc, err := os.ReadFile("../../docs/bundle.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{
		ArtifactType, AuthenticodeType, StatementType, SigstoreType, CertificatesAnnotation,
		fmt.Sprintf("%d referrers of at most %d blobs of %d GiB", maxReferrers, maxReferrerBlobs, maxReferrerBlob>>30),
		fmt.Sprintf("has at most %d MiB", maxDocument>>20),
	} {
		if !strings.Contains(string(doc), word) {
			t.Errorf("no %s", word)
		}
	}
	for mt, limit := range limits {
		size := fmt.Sprintf("%d MiB", limit>>20)
		if limit >= 1<<30 {
			size = fmt.Sprintf("%d GiB", limit>>30)
		}
		if row := fmt.Sprintf("| `%s` | %s |", mt, size); !strings.Contains(string(doc), row) {
			t.Errorf("no row ends in %q", row)
		}
	}
}
