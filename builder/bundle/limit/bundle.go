// SPDX-License-Identifier: Apache-2.0

package limit

// Limits of bundles and of what is attached to them.
const (
	Document      = 1 << 20   // an index, an OCI manifest or a signature
	Referrer      = 256 << 10 // the OCI manifest of an attachment
	KernelConfig  = 4 << 20   // .config
	SystemMap     = 64 << 20  // System.map
	Report        = 16 << 20  // the fidelity report
	ReportEntries = 100_000   // entries of all its lists
	Kernel        = 1 << 30   // the kernel's own limit for an image
	Initramfs     = 16 << 30
	AttachedBlob  = 1 << 30 // a blob of an attachment: carried, and not looked at
	AttachedBlobs = 16      // blobs of one attachment

	ReferrerValues = 4096 // JSON values of such a manifest

	Signatures  = 128  // signatures of a bundle
	Attachments = 1024 // what else is attached to a bundle, and copied with it
)

// Limits of what a registry answers.
const (
	Answer     = 4 << 20   // a manifest or a list
	ListValues = 128 << 10 // JSON values of one list
	Listed     = 16 << 10  // manifests of all pages of a list
	Pages      = 1 << 10   // of a list
	MediaType  = 255       // an artifact type: RFC 6838, section 4.2
)
