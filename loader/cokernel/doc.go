// SPDX-License-Identifier: Apache-2.0

// Package cokernel is the back end that runs a bundle's kernel beside the host's.
package cokernel

import "time"

const resizeTimeout = 10 * time.Second
