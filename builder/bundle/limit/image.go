// SPDX-License-Identifier: Apache-2.0

package limit

// Limits of what an image says of itself. Decoded, a value takes up to 256 bytes.
const (
	ImageManifest = 4 << 20  // a manifest or an index, in any transport
	ImageConfig   = 8 << 20  // an image configuration
	ImageValues   = 100_000  // values in one of them: numbers, texts, objects, lists
	ImageLayers   = 500      // layers of an image: as many as overlayfs stacks
	ImageArchive  = 72 << 30 // an archive of an image, unpacked from its compression
	ImageRatio    = 250      // of an archive of more than 1 GiB to its compressed size

	ArchiveMembers = 100_000 // members of an archive of an image or a bundle
	ArchiveNames   = 16 << 20
)
