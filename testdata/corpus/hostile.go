// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

// hostileCases try to leave the tree, and stay inside as under chroot.
func hostileCases() []Case {
	return []Case{
		image("dotdot", layers(layer(file("../../a", "1"), file("d/../../../b", "1"))), file("a", "1"), file("b", "1")),
		image("dotdot-after-a-symlink", layers(layer(dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib"), file("lib/../a", "1"), link("b", "lib/../a"))), file("a", "1"), link("b", "a"), symlink("lib", "usr/lib"), dir("usr"), dir("usr/lib")),
		image("absolute", layers(layer(dir("/etc"), file("/etc/passwd", "1"))), dir("etc"), file("etc/passwd", "1")),
		image("symlink-that-leads-outside", layers(layer(dir("etc"), symlink("out", "../../../../etc"), file("out/passwd", "1"))), dir("etc"), file("etc/passwd", "1"), symlink("out", "../../../../etc")),
		image("symlink-that-leads-outside-from-a-lower-layer", layers(layer(dir("etc"), symlink("out", "/../etc")), layer(file("out/passwd", "1"))), dir("etc"), file("etc/passwd", "1"), symlink("out", "/../etc")),
		image("symlink-to-the-root", layers(layer(dir("d"), symlink("d/root", "/"), file("d/root/a", "1"))), file("a", "1"), dir("d"), symlink("d/root", "/")),
		image("folder-by-way-of-a-symlink-that-leads-outside", layers(layer(symlink("out", "../../tmp"), dir("out/made"))), symlink("out", "../../tmp"), implied("tmp"), dir("tmp/made")),
		image("file-over-a-symlink-that-leads-outside", layers(layer(symlink("a", "../../../../etc/passwd"), file("a", "1"))), file("a", "1")),
		image("hard-link-to-outside", layers(layer(dir("d"), file("d/a", "1"), link("b", "../../../d/a"))), file("b", "1"), dir("d"), link("d/a", "b")),
		image("hard-link-to-a-symlink-that-leads-outside", layers(layer(symlink("s", "/etc/passwd"), link("b", "s"))), symlink("b", "/etc/passwd"), link("s", "b")),
		image("whiteout-of-what-is-outside", layers(layer(file("a", "1"), symlink("out", "../../..")), layer(whiteout("../../etc"), whiteout("out/b"))), file("a", "1"), symlink("out", "../../..")),
		image("opaque-of-what-is-outside", layers(layer(dir("d"), file("d/a", "1"), symlink("out", "../../../d")), layer(opaque("out"))), dir("d"), symlink("out", "../../../d")),
		image("attributes-by-way-of-dotdot", layers(layer(dir("d"), dir("d/e"), dir("d/e/..").mode(0o700))), dir("d").mode(0o700), dir("d/e")),
	}
}

func refusedCases() []Case {
	deep := strings.Repeat(strings.Repeat("d", 99)+"/", 40)
	ok := layer(file("a", "1"))
	return []Case{
		refused("hard-link-to-the-host", `hard link to "etc/passwd": lookup etc/passwd: file does not exist`, layer(link("a", "/etc/passwd"))),
		refused("hard-link-through-a-symlink-to-the-host", "does not exist", layer(symlink("s", "/etc"), link("a", "s/passwd"))),
		refused("hard-link-to-nothing", "does not exist", layer(link("a", "b"))),
		refused("hard-link-to-a-later-entry", "does not exist", layer(link("a", "b"), file("b", ""))),
		refused("hard-link-to-a-folder", "is a directory", layer(dir("d"), link("a", "d"))),
		refused("hard-link-to-the-root", "does not exist", layer(link("a", "/"))),
		refused("hard-link-to-what-a-lower-layer-hid", "does not exist", ok, layer(whiteout("a")), layer(link("b", "a"))),
		refused("hard-link-to-what-the-layer-replaced", "a parent is not a directory", layer(dir("d"), file("d/a", "1")), layer(whiteout("d"), file("d", "2"), link("b", "d/a"))),
		refused("file-as-a-parent", "a parent is not a directory", layer(file("a", ""), file("a/b", ""))),
		refused("linked-parent-in-a-circle", "too many levels", layer(symlink("a", "b"), symlink("b", "a"), file("a/x", ""))),
		refused("root-as-a-file", "the root can only be a directory", layer(file(".", "x"))),
		refused("whiteout-without-a-name", "whiteout without a name", layer(file("d/.wh.", ""))),
		refused("whiteout-of-dot", "whiteout without a name", layer(file("d/.wh..", ""))),
		refused("whiteout-of-dotdot", "whiteout without a name", layer(file("d/.wh...", ""))),
		refused("file-below-a-whiteout", "has the name of a whiteout", layer(file(".wh.d/a", ""))),
		refused("folder-named-as-a-whiteout-by-a-link", "has the name of a whiteout", layer(symlink("s", ".wh.d"), file("s/a", ""))),
		refused("socket", `unknown entry type 's'`, rawLayer(raw{name: "a", typ: 's', mode: 0o644, old: []byte(ustar)})),
		refused("device-number-beyond-32-bits", "does not exist", layer(char("a", 1<<40, 3))),
		refused("name-of-256-bytes", "name longer than 255 bytes", layer(file(strings.Repeat("n", 256), ""))),
		refused("path-of-4096-bytes", "longer than 4095 bytes", layer(file(strings.Repeat("d/", 2047)+"xx", ""))),
		refused("symlink-target-of-4096-bytes", "longer than 4095 bytes", layer(symlink("s", strings.Repeat("t", 4096)))),
		refused("path-without-an-end-by-way-of-links", "longer than 4095 bytes", layer(symlink("s", deep), symlink(deep+"t", deep), file("s/t/"+deep+"x", ""))),
		refused("symlink-without-a-target", "symlink without a target", rawLayer(raw{name: "s", typ: '2', mode: 0o777, old: []byte(ustar)})),
		refused("too-many-entries", "than the limit allows", layer(many(1001)...)),
		refused("too-many-implied-folders", "than the limit allows", layer(file(strings.Repeat("d/", 1100)+"f", ""))),
		refused("too-many-bytes", "than the limit allows", layer(file("a", strings.Repeat("x", 2<<20))).gzip(1)),
		refused("sparse-bomb", "than the limit allows", rawLayer(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "a", "GNU.sparse.realsize", "9000000000000000000"), regular("GNUSparseFile.1/a", padded("1\n9000000000000000000\n0\n")))),
		refused("sparse-bomb-of-2-gib", "than the limit allows", rawLayer(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "a", "GNU.sparse.realsize", "2147483648"), regular("GNUSparseFile.1/a", padded("1\n2147483648\n0\n")))),
		refused("global-header-that-sets-the-owner", `global header that sets "uid"`, rawLayer(raw{name: "g", typ: 'g', mode: 0o644, old: []byte(ustar), body: records("uid", "5")}, regular("a", "1"))),
		refused("archive-cut-short", "truncated", bytesLayer(ok.plain[:512])),
		refused("not-an-archive", "invalid tar header", bytesLayer([]byte(strings.Repeat("hello ", 200)))),
		refused("foreign-layer", "foreign layers are not supported", ok.as(types.OCIRestrictedLayer)),
		refused("foreign-layer-zstd", "foreign layers are not supported", ok.zstd(1).as("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd")),
		refused("foreign-layer-plain", "foreign layers are not supported", ok.as(types.OCIUncompressedRestrictedLayer)),
		refused("foreign-layer-of-docker", "foreign layers are not supported", ok.gzip(1).as(types.DockerForeignLayer)),
		refused("encrypted-layer", "encrypted layers are not supported", ok.gzip(1).as("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")),
		refused("layer-of-an-unknown-media-type", `media type "application/x-tar" is not a layer`, ok.as("application/x-tar")),
		refused("global-header-that-sets-a-list", `global header that sets "SCHILY.acl.access"`, rawLayer(raw{name: "g", typ: 'g', mode: 0o644, old: []byte(ustar), body: records("SCHILY.acl.access", "user::rw-")}, regular("a", "1"))),
		refused("posix-acl-that-is-none", "is not an entry of an access control list", rawLayer(pax("SCHILY.acl.access", "rwxr-x"), regular("a", "1"))),
		refused("posix-acl-of-a-symlink", "an access control list where there can be none", rawLayer(pax("SCHILY.acl.access", "user::rw-"), raw{name: "s", typ: '2', link: "a", mode: 0o777, old: []byte(ustar)})),
		refused("xattr-of-bsdtar-that-is-no-base64", "illegal base64", rawLayer(pax("LIBARCHIVE.xattr.user.a", "&"), regular("a", "1"))),
		refused("incremental-archive", "are not layers", rawLayer(pax("GNU.dumpdir", "Ya"), raw{name: "d/", typ: '5', mode: 0o755, old: []byte(ustar)})),
		refused("part-of-an-archive", "are not layers", rawLayer(pax("GNU.volume.filename", "a"), regular("a", "1"))),
		refused("unknown-entry-type", `unknown entry type 'Z'`, rawLayer(raw{name: "z", typ: 'Z', old: []byte(ustar)})),
		refused("volume-header", `unknown entry type 'V'`, rawLayer(raw{name: "label", typ: 'V', old: []byte("ustar  \x00")}, regular("a", ""))),
		refused("whiteout-that-is-only-a-prefix-in-a-later-layer", "whiteout without a name", ok, layer(newFile(tar.TypeReg, ".wh.", 0))),
	}
}

func many(n int) []File {
	out := make([]File, n)
	for i := range out {
		out[i] = file("a", "")
	}
	return out
}
