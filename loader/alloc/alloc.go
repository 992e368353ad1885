// SPDX-License-Identifier: Apache-2.0

// Package alloc decides which CPUs, memory and devices an instance gets, and takes
// them from the host.
//
// In: a Root, which is the host's /sys and /proc or a recording of another host's;
// a Request; what others hold. Out: a Topology; a Plan, or a PlanError that says
// what is short and who holds it; CPUs that no other process of the host is
// scheduled on, until they are released and everything is as it was before. Refused:
// plans that overlap with what is held, split a core without being asked to, or lie
// outside the bounds; recordings beyond the limits of this package.
//
// The three steps are apart: Read looks, Topology.Plan decides and touches nothing,
// Taking.Commit and Host.Release act.
package alloc
