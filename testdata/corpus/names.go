// SPDX-License-Identifier: Apache-2.0

package corpus

import (
	"archive/tar"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

func nameCases() []Case {
	long := strings.Repeat("n", 255)
	var deep []File // the longest path that there is: 4095 bytes
	for n := range 16 {
		deep = append(deep, dir(strings.Repeat(long+"/", n)+long))
	}
	deep = deep[:15]
	last := strings.Repeat(long+"/", 15) + strings.Repeat("x", 255)
	const strange = "-rf *;\n\t\x01\x7f\\'\"$(x) "
	return []Case{
		image("names-in-byte-order", layers(layer(file("b", ""), file("a.b", ""), dir("a"), file("a/z", ""), file("B", ""), file("\xc3\xa9", ""))),
			file("B", ""), dir("a"), file("a.b", ""), file("a/z", ""), file("b", ""), file("\xc3\xa9", "")),
		image("name-of-255-bytes", layers(layer(file(long, "1"))), file(long, "1")),
		image("name-prefix-of-ustar", layers(layer(dir(long[:100]), dir(long[:100]+"/b"), file(long[:100]+"/b/"+long[:99], "1").format(tar.FormatUSTAR))),
			dir(long[:100]), dir(long[:100]+"/b"), file(long[:100]+"/b/"+long[:99], "1")),
		image("names-of-pax", layers(layer(file(long, "1").format(tar.FormatPAX), symlink("s", strings.Repeat("t/", 100)).format(tar.FormatPAX))), file(long, "1"), symlink("s", strings.Repeat("t/", 100))),
		image("names-of-gnu", layers(layer(file(long, "1").format(tar.FormatGNU), symlink("s", strings.Repeat("t/", 100)).format(tar.FormatGNU), link("l", long).format(tar.FormatGNU))), file("l", "1"), link(long, "l"), symlink("s", strings.Repeat("t/", 100))),
		image("name-that-is-not-utf-8", layers(layer(file("\xff\xfe", "1").format(tar.FormatGNU), symlink("s", "\x80").format(tar.FormatGNU)), layer(file("\xe9", "2").format(tar.FormatPAX))),
			symlink("s", "\x80"), file("\xe9", "2"), file("\xff\xfe", "1")),
		image("name-that-is-not-utf-8-in-a-plain-header", layers(rawLayer(regular("\xff", "1"))), file("\xff", "1")),
		image("name-of-strange-bytes", layers(layer(file(strange, "1"), symlink("s", strange))), file(strange, "1"), symlink("s", strange)),
		image("names-of-dots", layers(layer(file("...", "1"), file("..a", "1"), file("a..", "1"), dir(".d"), file(".d/..b", "1"))),
			file("...", "1"), file("..a", "1"), dir(".d"), file(".d/..b", "1"), file("a..", "1")),
		image("names-like-whiteouts", layers(layer(file("wh.a", "1"), file(".whb", "1"), file("a.wh.b", "1"), file(".WH.c", "1"))),
			file(".WH.c", "1"), file(".whb", "1"), file("a.wh.b", "1"), file("wh.a", "1")),
		image("name-of-the-cpio-trailer-in-a-folder", layers(layer(dir("d"), file("d/TRAILER!!!", "1"), file("d/z", "1"))), dir("d"), file("d/TRAILER!!!", "1"), file("d/z", "1")),
		image("names-with-dots-and-slashes", layers(layer(dir("d/"), dir("./d/./b//"), file("./d//./a", "1"), file("d/b/../c", "1"))), dir("d"), file("d/a", "1"), dir("d/b"), file("d/c", "1")),
		image("path-of-4095-bytes", layers(layer(append(deep, file(last, "1"))...)), append(deep, file(last, "1"))...).alone().umoci("uses paths that start at the root of the host, which get too long"),
		image("symlink-target-of-4095-bytes", layers(layer(symlink("s", strings.Repeat("t", 4095)))), symlink("s", strings.Repeat("t", 4095))),
		image("symlinks-that-lead-nowhere", layers(layer(symlink("loop", "loop"), symlink("up", "../../../x"), symlink("slash", "/"), symlink("dots", "a//./b/"))),
			symlink("dots", "a//./b/"), symlink("loop", "loop"), symlink("slash", "/"), symlink("up", "../../../x")),
	}
}

func formatCases() []Case {
	big := strings.Repeat("content ", 40_000)
	files := layer(dir("d"), file("d/a", big), file("b", "2"))
	want := []File{file("b", "2"), dir("d"), file("d/a", big)}
	hole := "head" + strings.Repeat("\x00", 8188) + "tail"
	head, tail := padded("head"), padded("tail")
	const zstdIsNew = "0.4.7 has no zstd"
	return []Case{
		image("plain", layers(files), want...),
		image("gzip", layers(files.gzip(1)), want...),
		image("gzip-of-three-members", layers(files.gzip(3)), want...),
		image("zstd", layers(files.zstd(1)), want...).umoci(zstdIsNew),
		image("zstd-of-three-frames", layers(files.zstd(3)), want...).umoci(zstdIsNew),
		image("three-compressions", layers(layer(file("a", "1")), layer(file("b", "2")).gzip(1), layer(file("c", "3")).zstd(1)), file("a", "1"), file("b", "2"), file("c", "3")).umoci(zstdIsNew),
		image("gzip-that-says-plain", layers(files.gzip(1).as(types.OCIUncompressedLayer)), want...).umoci("goes by the media type"),
		image("plain-that-says-gzip", layers(files.as(types.OCILayer)), want...).umoci("goes by the media type"),
		image("docker-media-type", layers(files.gzip(1).as(types.DockerLayer)), want...).umoci("knows only the media types of OCI"),
		image("archive-of-nothing", layers(bytesLayer(nil))),
		image("archive-without-its-end", layers(bytesLayer(regular("a", "1").bytes())), file("a", "1")),
		image("archive-with-much-padding", layers(bytesLayer(append(layer(file("a", "1")).plain, make([]byte, 10240)...)).gzip(1)), file("a", "1")),
		image("header-of-tar-version-7", layers(rawLayer(raw{name: "d/", mode: 0o755}, raw{name: "d/a", mode: 0o644, body: "1"}, raw{name: "d/s", typ: '2', mode: 0o777, link: "a"}, raw{name: "d/l", typ: '1', mode: 0o644, link: "d/a"})),
			dir("d"), file("d/a", "1"), link("d/l", "d/a"), symlink("d/s", "a")),
		image("numbers-of-base-256", layers(rawLayer(raw{name: "a", typ: '0', mode: 0o644, uid: "\x80\x00\x00\x00\x80\x00\x00\x01", old: []byte("ustar  \x00"), body: "1"})), file("a", "1").owned(1<<31+1, 0)),
		image("pax-header-overrides", layers(rawLayer(pax("path", "really", "uid", "70000", "gid", "80000", "size", "1"), raw{name: "other", typ: '0', mode: 0o644, old: []byte(ustar), body: "1"})), file("really", "1").owned(70000, 80000)),
		image("pax-header-with-unknown-keys", layers(rawLayer(pax("comment", "x", "VENDOR.key", "\xff"), regular("a", "1"))), file("a", "1")),
		image("global-header-with-a-comment", layers(rawLayer(raw{name: "pax_global_header", typ: 'g', mode: 0o666, old: []byte(ustar), body: records("comment", "0123456789")}, regular("a", "1"))), file("a", "1")).umoci("does not know type g of POSIX"),
		image("sparse-of-gnu", layers(rawLayer(raw{name: "a", typ: 'S', mode: 0o644, size: 512 + 4, old: oldSparse(), body: head + "tail"})), file("a", hole)).umoci("does not know type S of GNU"),
		image("sparse-of-pax-0.0", layers(rawLayer(pax("GNU.sparse.size", "8196", "GNU.sparse.numblocks", "2", "GNU.sparse.offset", "0", "GNU.sparse.numbytes", "512", "GNU.sparse.offset", "8192", "GNU.sparse.numbytes", "4"), regular("a", head+"tail"))), file("a", hole)),
		image("sparse-of-pax-0.1", layers(rawLayer(pax("GNU.sparse.size", "8196", "GNU.sparse.numblocks", "2", "GNU.sparse.map", "0,512,8192,4", "GNU.sparse.name", "a"), regular("GNUSparseFile.1/a", head+"tail"))), file("a", hole)),
		image("sparse-of-pax-1.0", layers(rawLayer(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "a", "GNU.sparse.realsize", "8196"), regular("GNUSparseFile.1/a", padded("2\n0\n512\n8192\n4\n")+head+tail[:4]))), file("a", hole)),
		image("sparse-that-ends-in-a-hole", layers(rawLayer(pax("GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "a", "GNU.sparse.realsize", "9000"), regular("GNUSparseFile.1/a", padded("1\n9000\n0\n")))), file("a", strings.Repeat("\x00", 9000))),
		image("file-of-a-megabyte", layers(layer(file("a", strings.Repeat("0123456789abcdef", 1<<16))).gzip(1)), file("a", strings.Repeat("0123456789abcdef", 1<<16))),
	}
}

// oldSparse is a header of GNU's first format: two pieces of 8196 bytes.
func oldSparse() []byte {
	b := make([]byte, 255)
	copy(b, "ustar  \x00")
	field := func(at int, text string) { copy(b[at-257:], text) }
	field(386, "00000000000\x00")
	field(398, "00000001000\x00")
	field(410, "00000020000\x00")
	field(422, "00000000004\x00")
	field(483, "00000020004\x00")
	return b
}
