// SPDX-License-Identifier: Apache-2.0

// Package limit has the limits of what the loader reads whole: from guests, from callers of a
// supervisor, and from its own files.
//
// In: nothing. Out: constants. A size is in bytes, and everything else is a number of entries.
// Within JSON, package strictjson limits the number of values as well.
package limit

const (
	Frame   = 64 << 10 // the JSON document of one control frame
	Signals = 64       // signals that wait until PID 1 listens

	Call  = 4 << 10  // what a supervisor is asked for
	Reply = 64 << 10 // what it answers
	Calls = 256      // calls that a supervisor answers at once

	Request   = 16 << 10 // of an instance, in JSON: its record has to have room for how it ends
	Record    = 64 << 10 // of an instance
	Instances = 4096     // in a directory

	State     = 4 << 20 // what a host has seen
	TrustFile = 1 << 20 // a policy, a key, certificates or a revocation list
)
