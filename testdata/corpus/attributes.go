// SPDX-License-Identifier: Apache-2.0

package corpus

import "archive/tar"

func attributeCases() []Case {
	return []Case{
		image("every-type", layers(layer(file("file", "1"), dir("dir"), symlink("symlink", "file"), char("char", 1, 3), block("block", 8, 1), fifo("fifo"), link("link", "file"))),
			block("block", 8, 1), char("char", 1, 3), dir("dir"), fifo("fifo"), file("file", "1"), link("link", "file"), symlink("symlink", "file")),
		image("largest-device-numbers", layers(layer(char("c", 4095, 1<<20-1), block("b", 4095, 1<<20-1))), block("b", 4095, 1<<20-1), char("c", 4095, 1<<20-1)),
		image("device-that-overlayfs-takes-for-a-whiteout", layers(layer(dir("d"), char("d/a", 1, 1))), dir("d"), char("d/a", 1, 1)),
		image("setuid-setgid-sticky", layers(layer(file("su", "1").mode(0o4755), file("sg", "1").mode(0o2755).owned(0, 5), file("all", "1").mode(0o7777).owned(3, 4), dir("tmp").mode(0o1777), dir("sg-dir").mode(0o2770).owned(1, 2), fifo("p").mode(0o4622))),
			file("all", "1").mode(0o7777).owned(3, 4), fifo("p").mode(0o4622), file("sg", "1").mode(0o2755).owned(0, 5), dir("sg-dir").mode(0o2770).owned(1, 2), file("su", "1").mode(0o4755), dir("tmp").mode(0o1777)),
		image("no-permissions", layers(layer(dir("d").mode(0), file("d/a", "1").mode(0), file("d/w", "1").mode(0o222))), dir("d").mode(0), file("d/a", "1").mode(0), file("d/w", "1").mode(0o222)),
		image("setgid-folder-gives-its-group-to-nobody", layers(layer(dir("d").mode(0o2755).owned(0, 50), file("d/a", "1"), dir("d/e"))), dir("d").mode(0o2755).owned(0, 50), file("d/a", "1"), dir("d/e")),
		image("owner-beyond-ustar", layers(layer(file("a", "").owned(1<<21, 1<<21), file("b", "").owned(1<<31, 1<<32-2))), file("a", "").owned(1<<21, 1<<21), file("b", "").owned(1<<31, 1<<32-2)),
		image("owner-names-mean-nothing", layers(layer(named(file("a", ""), "root", "root").owned(1000, 1001), named(file("b", ""), "nobody", "daemon"))), file("a", "").owned(1000, 1001), file("b", "")),
		image("root-attributes", layers(layer(dir("./").mode(0o711).owned(3, 4).at(7), file("a", "1"))), dir(".").mode(0o711).owned(3, 4).at(7), file("a", "1")),
		image("root-attributes-alone", layers(layer(dir("./").mode(0o700).owned(3, 4).at(7), file("a", "1"))), dir(".").mode(0o700).owned(3, 4).at(7), file("a", "1")).alone(),
		image("root-that-no-layer-has", layers(layer(file("a", "1"))), file("a", "1")).alone(),
		image("root-attributes-of-the-last-layer", layers(layer(dir("./").mode(0o711)), layer(file("a", "1")), layer(dir("/").mode(0o1777).at(9))), dir(".").mode(0o1777).at(9), file("a", "1")),
		image("time-zero", layers(layer(file("a", "").at(0), dir("d").at(0), symlink("s", "x").at(0), fifo("p").at(0))), file("a", "").at(0), dir("d").at(0), fifo("p").at(0), symlink("s", "x").at(0)),
		image("time-beyond-2038", layers(layer(file("a", "1").at(1<<32-1), dir("d").at(1<<31), file("d/b", "1").at(1<<31))), file("a", "1").at(1<<32-1), dir("d").at(1<<31), file("d/b", "1").at(1<<31)),
		image("time-of-nanoseconds", layers(rawLayer(pax("mtime", "1234.987654321"), regular("a", "1"))), file("a", "1").at(1234)),
		image("time-of-a-folder-with-later-files", layers(layer(dir("d").at(5), dir("d/e").at(6), file("d/e/a", "1"), file("d/b", "1"))), dir("d").at(5), file("d/b", "1"), dir("d/e").at(6), file("d/e/a", "1")),
		image("times-of-access-and-change", layers(rawLayer(pax("atime", "5", "ctime", "6", "mtime", "7"), regular("a", "1"))), file("a", "1").at(7)),
		image("xattrs", layers(layer(file("a", "1").attr("user.text", "value").attr("user.binary", "\x01\x00\xff\n"), dir("d").attr("user.empty", ""))),
			file("a", "1").attr("user.text", "value").attr("user.binary", "\x01\x00\xff\n"), dir("d").attr("user.empty", "")).
			umoci("drops attributes without a value"),
		image("file-capability-of-a-hidden-file", layers(layer(file(".a", "1").mode(0o755).attr("security.capability", netBind), file("a", "2"))), file(".a", "1").mode(0o755).attr("security.capability", netBind), file("a", "2")),
		image("file-capability", layers(layer(file("a", "1").mode(0o755).attr("security.capability", netBind))), file("a", "1").mode(0o755).attr("security.capability", netBind)),
		image("posix-acl-of-bsdtar", layers(rawLayer(pax("SCHILY.acl.access", "user::rw-,group::r--,mask::rw-,other::r--,user:bob:rw-:1000"), regular("a", "1"))),
			file("a", "1").attr("system.posix_acl_access", accessACL)).umoci("does not know SCHILY.acl"),
		image("posix-acl-of-gnu-tar", layers(rawLayer(pax("SCHILY.acl.access", "user::rw-\nuser:1000:rw-\ngroup::r--\nmask::rw-\nother::r--\n"), regular("a", "1"))),
			file("a", "1").attr("system.posix_acl_access", accessACL)).umoci("does not know SCHILY.acl"),
		image("posix-acl-that-children-inherit", layers(rawLayer(pax("SCHILY.acl.default", "user::rw-,user:1000:rw-,group::r--,mask::rw-,other::r--"), raw{name: "d/", typ: '5', mode: 0o755, old: []byte(ustar)})),
			dir("d").attr("system.posix_acl_default", accessACL)).umoci("does not know SCHILY.acl"),
		image("posix-acl-without-numbers", layers(rawLayer(pax("SCHILY.acl.access", "user::rw-,user:bob:rw-,group::r--,mask::rw-,other::r--"), regular("a", "1"))),
			file("a", "1").attr("system.posix_acl_access", "user::rw-,user:bob:rw-,group::r--,mask::rw-,other::r--")).umoci("does not know SCHILY.acl"),
		image("xattrs-of-bsdtar", layers(rawLayer(pax("LIBARCHIVE.xattr.user.a%3Db", "dmFsdWU", "LIBARCHIVE.xattr.user.both", "AAE=", "SCHILY.xattr.user.both", "\x00\x01"), regular("a", "1"))),
			file("a", "1").attr("user.a=b", "value").attr("user.both", "\x00\x01")).umoci("does not know LIBARCHIVE.xattr"),
		image("selinux-label-of-gnu-tar", layers(rawLayer(pax("RHT.security.selinux", "system_u:object_r:bin_t:s0"), regular("a", "1"))),
			file("a", "1").attr("security.selinux", "system_u:object_r:bin_t:s0\x00")).umoci("does not know RHT.security.selinux"),
		image("file-flags-that-are-for-the-disk", layers(rawLayer(pax("SCHILY.fflags", "nodump,nocow", "SCHILY.dev", "1", "SCHILY.ino", "2", "SCHILY.nlink", "1", "LIBARCHIVE.creationtime", "1.5"), regular("a", "1"))), file("a", "1")),
		image("file-flags-that-hold-an-app", layers(rawLayer(pax("SCHILY.fflags", "immutable,nodump"), regular("a", "1"))), file("a", "1").attr("file flags", "immutable,nodump")).umoci("does not know SCHILY.fflags"),
		image("device-numbers-of-bsdtar", layers(rawLayer(pax("SCHILY.devmajor", "8", "SCHILY.devminor", "1048575"), raw{name: "b", typ: '4', mode: 0o600, old: []byte(ustar)})), block("b", 8, 1<<20-1)).umoci("does not know SCHILY.devminor"),
		image("mode-of-a-symlink-means-nothing", layers(layer(symlink("s", "x").mode(0o777).owned(5, 6))), symlink("s", "x").owned(5, 6)),
		image("contiguous-file", layers(rawLayer(raw{name: "a", typ: '7', mode: 0o644, old: []byte(ustar), body: "1"})), file("a", "1")).
			umoci("does not know type 7, which POSIX says to treat as a regular file"),
	}
}

// netBind is CAP_NET_BIND_SERVICE, permitted and effective: a struct
// vfs_cap_data of revision 2.
const netBind = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// accessACL is "user::rw-,user:1000:rw-,group::r--,mask::rw-,other::r--": a struct
// posix_acl_xattr_header of version 2 and its entries of tag, permissions and number.
const accessACL = "\x02\x00\x00\x00" +
	"\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x06\x00\xe8\x03\x00\x00" + "\x04\x00\x04\x00\xff\xff\xff\xff" +
	"\x10\x00\x06\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"

func named(f File, user, group string) File {
	f.Header.Uname, f.Header.Gname, f.Header.Format = user, group, tar.FormatPAX
	return f
}
