// SPDX-License-Identifier: Apache-2.0

// Package limit has the limits of what a stranger may hand us and what is read whole.
//
// In: nothing. Out: constants. A size is in bytes, and everything else is a number of
// entries. Each file has the limits of one format. Whoever reads a document checks both: a
// small document may have so many entries that decoding them takes a thousand times its size.
package limit
