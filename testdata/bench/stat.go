// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"time"
)

// sample is a duration in nanoseconds, or a size in bytes.
type sample int64

// unit is what samples of a series are printed in.
type unit struct {
	name string
	one  sample
}

var (
	milliseconds = unit{"ms", sample(time.Millisecond)}
	microseconds = unit{"µs", sample(time.Microsecond)}
	mebibytes    = unit{"MiB", 1 << 20}
)

func (u unit) of(s sample) float64 { return float64(s) / float64(u.one) }

// spread is what is reported of samples.
type spread struct {
	Median float64 `json:"median,omitempty"`
	Min    float64 `json:"min,omitempty"`
	Max    float64 `json:"max,omitempty"`
}

func spreadOf(samples []float64) spread {
	return spread{median(samples), slices.Min(samples), slices.Max(samples)}
}

// median is the mean of the two in the middle when their number is even.
func median(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is the subject's to a peer: that of their medians, and the least and the greatest of
// a round.
type ratio struct {
	Ratio    float64 `json:"ratio,omitempty"`
	RatioMin float64 `json:"ratioMin,omitempty"`
	RatioMax float64 `json:"ratioMax,omitempty"`
}

// ratioOf takes as many samples of the peer as of the subject, from the same rounds.
func ratioOf(subject, peer []float64) ratio {
	pairs := make([]float64, len(subject))
	for i := range subject {
		pairs[i] = subject[i] / peer[i]
	}
	return ratio{median(subject) / median(peer), slices.Min(pairs), slices.Max(pairs)}
}
