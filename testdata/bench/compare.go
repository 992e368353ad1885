// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"os/exec"
	"time"

	"github.com/tenon-build/tenon/testdata/e2e"
)

// comparison compares a subject of ours with peers that do the same work.
type comparison struct {
	name, what string
	prepare    func(j *job) []series // builds what is needed; it is not timed
}

// series is measured in rounds: each round measures the subject once, then each peer once.
type series struct {
	what    string // empty: what the comparison says
	unit    unit
	rounds  int
	subject side
	peers   []side
}

// side is the subject or a peer.
type side struct {
	name    string
	needs   []string // programs that have to be in $PATH
	measure func(t e2e.T) sample
}

// How long a preparation and the measurement of a sample may take. Kernels are compiled
// in a preparation.
const (
	prepareLimit = 2 * time.Hour
	sampleLimit  = 10 * time.Minute
)

// compare prepares all comparisons before it measures any of them. It says on stderr what
// it does.
func compare(ctx context.Context, chosen []comparison, stderr io.Writer) (rows []row) {
	p := newProgress(stderr)
	defer p.end()
	type prepared struct {
		*job
		all []series
		err error
	}
	ready := make([]prepared, len(chosen))
	for i, c := range chosen {
		r := &ready[i]
		r.job = newJob(ctx, p, c)
		r.step("preparing")
		r.err = r.try(prepareLimit, func() { r.all = c.prepare(r.job) })
	}
	for _, r := range ready {
		if r.err != nil {
			rows = append(rows, r.failed("prepare: ", r.err))
		}
		for _, s := range r.all {
			rows = append(rows, r.measure(s)...)
		}
		if err := r.end(); err != nil {
			rows = append(rows, r.failed("clean up: ", err))
		}
	}
	return rows
}

// failed is the row of a comparison that fails as a whole.
func (j *job) failed(when string, err error) row {
	return row{Comparison: j.comparison.name, What: j.comparison.what, Error: when + err.Error()}
}

// measure measures a series and returns a row for each side.
func (j *job) measure(s series) (rows []row) {
	j.step("measuring, rounds: %d", s.rounds)
	sides := append([]side{s.subject}, s.peers...)
	samples, errs := j.samples(sides, s.rounds, s.unit)
	what := s.what
	if what == "" {
		what = j.comparison.what
	}
	for i, side := range sides {
		r := row{Comparison: j.comparison.name, What: what, Subject: s.subject.name, Unit: s.unit.name}
		if i > 0 {
			r.Peer = side.name
		}
		if errs[i] != nil {
			r.Error = errs[i].Error()
		} else {
			r.Rounds, r.spread = len(samples[i]), spreadOf(samples[i])
		}
		if i > 0 && errs[i] == nil && errs[0] == nil {
			r.ratio = ratioOf(samples[0], samples[i])
		}
		rows = append(rows, r)
	}
	return rows
}

// samples measures the sides in turn. One that fails is not measured again; the others are.
func (j *job) samples(sides []side, rounds int, u unit) (samples [][]float64, errs []error) {
	samples, errs = make([][]float64, len(sides)), make([]error, len(sides))
	for i, side := range sides {
		errs[i] = j.try(sampleLimit, func() {
			for _, program := range side.needs {
				if _, err := exec.LookPath(program); err != nil {
					j.Error(err)
				}
			}
		})
	}
	for round := range rounds {
		for i, side := range sides {
			if errs[i] != nil {
				continue
			}
			j.now("round %d of %d, %s", round+1, rounds, side.name)
			errs[i] = j.try(sampleLimit, func() {
				got := side.measure(j)
				if got <= 0 {
					j.Fatalf("measured %d", got)
				}
				samples[i] = append(samples[i], u.of(got))
			})
		}
	}
	return samples, errs
}
