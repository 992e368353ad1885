// SPDX-License-Identifier: Apache-2.0

// Package cokernel is the back end that runs a bundle's kernel beside the host's, on
// CPUs and memory that the host's kernel gives away meanwhile. There is no hypervisor.
//
// In: a verified bundle and a plan. Out: an instance that the kernel module mortise
// (directory module) keeps, so that it outlives the process that started it. Refused:
// hosts and plans that the module cannot serve, and whatever the host's kernel does not
// accept: the module checks the bundle's statement by itself, against the kernel's
// keyrings.
package cokernel
