// SPDX-License-Identifier: Apache-2.0

package trust

// Distinct counts the identities that can be told apart: the most that have a key
// each which stands for nobody else. keys[n] are those that signed for identity
// n, by fingerprint. It is the size of a maximum matching, found by Kuhn's
// algorithm.
func Distinct(keys [][]string) int {
	holder := map[string]int{} // of a key
	var give func(n int, tried map[string]bool) bool
	give = func(n int, tried map[string]bool) bool {
		for _, key := range keys[n] {
			if tried[key] {
				continue
			}
			tried[key] = true
			if other, taken := holder[key]; !taken || give(other, tried) {
				holder[key] = n
				return true
			}
		}
		return false
	}
	count := 0
	for n := range keys {
		if give(n, map[string]bool{}) {
			count++
		}
	}
	return count
}
