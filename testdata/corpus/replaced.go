// SPDX-License-Identifier: Apache-2.0

package corpus

func replacementCases() []Case {
	return []Case{
		image("folder-to-file", layers(layer(dir("d"), file("d/a", "1")), layer(file("d", "2"))), file("d", "2")),
		image("folder-to-file-and-back", layers(layer(dir("d"), file("d/a", "1")), layer(file("d", "2")), layer(dir("d").mode(0o711), file("d/b", "3"))), dir("d").mode(0o711), file("d/b", "3")),
		image("folder-to-symlink", layers(layer(dir("lib"), file("lib/a", "1"), dir("usr")), layer(symlink("lib", "usr"), file("lib/b", "2"))), symlink("lib", "usr"), dir("usr"), file("usr/b", "2")),
		image("folder-to-symlink-and-back", layers(layer(dir("lib"), file("lib/a", "1"), dir("usr")), layer(symlink("lib", "usr")), layer(dir("lib"), file("lib/b", "3"))), dir("lib"), file("lib/b", "3"), dir("usr")),
		image("file-to-folder", layers(layer(file("d", "1")), layer(dir("d"), file("d/b", "2"))), dir("d"), file("d/b", "2")),
		image("file-to-symlink-to-fifo-to-device", layers(layer(file("a", "1")), layer(symlink("a", "x")), layer(fifo("a")), layer(char("a", 1, 3))), char("a", 1, 3)),
		image("device-to-file", layers(layer(char("dev/null", 1, 3)), layer(file("dev/null", "1"))), implied("dev"), file("dev/null", "1")),
		image("symlink-to-file", layers(layer(file("a", "1"), symlink("s", "a")), layer(file("s", "2"))), file("a", "1"), file("s", "2")),
		image("symlink-to-folder", layers(layer(dir("usr"), file("usr/a", "1"), symlink("lib", "usr")), layer(dir("lib"), file("lib/b", "2"))), dir("lib"), file("lib/b", "2"), dir("usr"), file("usr/a", "1")),
		image("mode-of-a-folder", layers(layer(dir("d"), file("d/a", "1")), layer(dir("d").mode(0o2775).owned(10, 20).at(7))), dir("d").mode(0o2775).owned(10, 20).at(7), file("d/a", "1")),
		image("mode-of-a-file", layers(layer(file("a", "1")), layer(file("a", "1").mode(0o4750).owned(10, 20).at(7))), file("a", "1").mode(0o4750).owned(10, 20).at(7)),
		image("xattr-of-a-folder-goes", layers(layer(dir("d").attr("user.old", "1"), file("d/a", "1")), layer(dir("d").attr("user.new", "2"))), dir("d").attr("user.new", "2"), file("d/a", "1")),
		image("xattr-of-a-file-goes", layers(layer(file("a", "1").attr("user.old", "1")), layer(file("a", "1"))), file("a", "1")),
		image("time-of-a-symlink", layers(layer(symlink("s", "a")), layer(symlink("s", "a").at(3000).owned(3, 4))), symlink("s", "a").at(3000).owned(3, 4)),
		image("linked-parent", layers(layer(dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")), layer(file("lib/foo", "2"))), symlink("lib", "usr/lib"), dir("usr"), dir("usr/lib"), file("usr/lib/foo", "2")),
		image("linked-parent-absolute", layers(layer(dir("usr"), symlink("lib", "/usr")), layer(file("lib/foo", "2"))), symlink("lib", "/usr"), dir("usr"), file("usr/foo", "2")),
		image("linked-parent-over-two-links", layers(layer(dir("d"), dir("d/c"), symlink("b", "d"), symlink("a", "b/c")), layer(file("a/foo", "1"))), symlink("a", "b/c"), symlink("b", "d"), dir("d"), dir("d/c"), file("d/c/foo", "1")),
		image("linked-parent-to-nowhere", layers(layer(symlink("lib", "usr/lib")), layer(file("lib/foo", "2"))), symlink("lib", "usr/lib"), implied("usr"), implied("usr/lib"), file("usr/lib/foo", "2")),
	}
}

func hardlinkCases() []Case {
	lower := layer(dir("d"), file("d/a", "1").mode(0o4755).owned(3, 4))
	a := file("d/a", "1").mode(0o4755).owned(3, 4)
	b := a
	b.Header.Name = "b"
	return []Case{
		image("hard-links", layers(layer(file("a", "1"), link("b", "a"), link("c", "b"))), file("a", "1"), link("b", "a"), link("c", "a")),
		image("hard-links-in-folders", layers(layer(dir("x"), dir("y"), file("y/a", "1"), link("x/b", "y/a"), link("z", "x/b"))), dir("x"), file("x/b", "1"), dir("y"), link("y/a", "x/b"), link("z", "x/b")),
		image("hard-link-to-a-lower-layer", layers(lower, layer(link("b", "d/a"))), b, dir("d"), link("d/a", "b")),
		image("hard-link-to-the-lowest-of-three", layers(lower, layer(file("e", "")), layer(link("b", "d/a"))), b, dir("d"), link("d/a", "b"), file("e", "")),
		image("hard-link-target-replaced", layers(layer(file("a", "1"), link("b", "a")), layer(file("a", "2"))), file("a", "2"), file("b", "1")),
		image("hard-link-itself-replaced", layers(layer(file("a", "1"), link("b", "a")), layer(file("b", "2"))), file("a", "1"), file("b", "2")),
		image("hard-link-target-removed", layers(layer(file("a", "1"), link("b", "a"), link("c", "a")), layer(whiteout("a"))), file("b", "1"), link("c", "b")),
		image("hard-link-target-changed-in-mode", layers(layer(file("a", "1"), link("b", "a")), layer(file("a", "1").mode(0o600), link("b", "a"))), file("a", "1").mode(0o600), link("b", "a")),
		image("hard-link-before-a-new-target", layers(layer(file("a", "1")), layer(link("b", "a"), file("a", "2"))), file("a", "2"), file("b", "1")),
		image("hard-link-after-a-new-target", layers(layer(file("a", "1")), layer(file("a", "2"), link("b", "a"))), file("a", "2"), link("b", "a")),
		image("hard-link-before-the-whiteout-of-its-target", layers(lower, layer(link("b", "d/a"), whiteout("d/a"))), b, dir("d")),
		image("hard-link-after-the-whiteout-of-its-target", layers(lower, layer(whiteout("d/a"), link("b", "d/a"))), b, dir("d")).
			umoci("has deleted the target: the order of whiteouts matters to it"),
		image("hard-link-after-the-whiteout-of-its-folder", layers(lower, layer(whiteout("d"), link("b", "d/a"), link("c", "b"))), b, link("c", "b")).
			umoci("has deleted the target: the order of whiteouts matters to it"),
		image("hard-link-into-an-opaque-folder", layers(lower, layer(dir("d"), link("d/b", "d/a"), opaque("d"))), dir("d"), rename(a, "d/b")),
		image("hard-link-to-a-new-target-that-a-whiteout-names", layers(lower, layer(whiteout("d/a"), file("d/a", "2"), link("b", "d/a"))), file("b", "2"), dir("d"), link("d/a", "b")),
		image("hard-link-replaces-a-folder", layers(layer(dir("b"), file("b/x", ""), file("a", "1")), layer(link("b", "a"))), file("a", "1"), link("b", "a")),
		image("hard-link-to-a-symlink", layers(layer(symlink("s", "nowhere"), link("t", "s"))), symlink("s", "nowhere"), link("t", "s")),
		image("hard-link-to-a-device", layers(layer(char("a", 1, 3), link("b", "a"), block("c", 8, 1), link("d", "c"))), char("a", 1, 3), link("b", "a"), block("c", 8, 1), link("d", "c")),
		image("hard-link-to-a-fifo", layers(layer(fifo("a"), link("b", "a"))), fifo("a"), link("b", "a")),
		image("hard-link-to-an-empty-file", layers(layer(file("a", ""), link("b", "a"))), file("a", ""), link("b", "a")),
		image("hard-link-with-an-absolute-target", layers(layer(dir("d"), file("d/a", "1"), link("b", "/d/a"))), file("b", "1"), dir("d"), link("d/a", "b")),
		image("hard-link-through-a-linked-parent", layers(layer(dir("usr"), file("usr/a", "1"), symlink("lib", "usr"), link("b", "lib/a"))), file("b", "1"), symlink("lib", "usr"), dir("usr"), link("usr/a", "b")),
		image("hard-link-with-attributes-of-its-own", layers(layer(file("a", "1"), link("b", "a").mode(0o4711).owned(9, 8).at(9))), file("a", "1"), link("b", "a")),
		image("hard-link-to-a-symlink-with-an-owner-of-its-own", layers(layer(symlink("s", "x"), link("t", "s").mode(0o777).owned(9, 8).at(9))), symlink("s", "x"), link("t", "s")),
	}
}

func rename(f File, path string) File {
	f.Header.Name = path
	return f
}
