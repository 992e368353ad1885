// SPDX-License-Identifier: Apache-2.0

package corpus

func layerCases() []Case {
	return []Case{
		image("no-layers", nil),
		image("empty-layer", layers(layer())),
		image("empty-layer-between-two", layers(layer(file("a", "1")), layer(), layer(file("b", "2"))), file("a", "1"), file("b", "2")),
		image("later-layer-wins", layers(layer(file("a", "1"), file("b", "1")), layer(file("a", "2").at(2000))), file("a", "2").at(2000), file("b", "1")),
		image("layer-twice", layers(layer(dir("d"), file("d/a", "1")), layer(dir("d"), file("d/a", "1"))), dir("d"), file("d/a", "1")),
		image("specification-example",
			layers(
				layer(dir("./"), dir("./etc/"), file("./etc/my-app-config", "1"), dir("./bin/"), file("./bin/my-app-binary", "1"), file("./bin/my-app-tools", "1")),
				layer(dir("./etc/my-app.d/"), file("./etc/my-app.d/default.cfg", "2"), file("./bin/my-app-tools", "2"), file("./etc/.wh.my-app-config", "")),
			),
			dir("."), dir("bin"), file("bin/my-app-binary", "1"), file("bin/my-app-tools", "2"), dir("etc"), dir("etc/my-app.d"), file("etc/my-app.d/default.cfg", "2")),
		image("duplicate-entry", layers(layer(file("a", "1"), file("a", "22").mode(0o600))), file("a", "22").mode(0o600)),
		image("duplicate-entry-of-another-type", layers(layer(dir("d"), file("d/a", "1"), symlink("d", "x"), file("f", "1"), dir("f"))), symlink("d", "x"), dir("f")),
		image("duplicate-folder", layers(layer(dir("d").mode(0o700), file("d/a", "1"), dir("d").mode(0o711).owned(3, 4))), dir("d").mode(0o711).owned(3, 4), file("d/a", "1")),
		image("parents-that-no-layer-has", layers(layer(file("a/b/c", "1"))), implied("a"), implied("a/b"), file("a/b/c", "1")),
		image("parent-after-its-child", layers(layer(file("a/b", "1"), dir("a").mode(0o700).owned(5, 6))), dir("a").mode(0o700).owned(5, 6), file("a/b", "1")),
		image("child-leaves-its-parent-as-it-is", layers(layer(dir("d").mode(0o2750).owned(1, 2).at(5)), layer(file("d/a", "1"))), dir("d").mode(0o2750).owned(1, 2).at(5), file("d/a", "1")),
	}
}

// touches is what umoci does to the time of a folder that it has already made.
const touches = "deletes in a folder of the layer's own, and leaves it with the time of that"

func whiteoutCases() []Case {
	lower := layer(dir("d"), file("d/a", "1"), file("d/b", "1"), file("e", "1"))
	return []Case{
		image("whiteout", layers(lower, layer(whiteout("d/a"))), dir("d"), file("d/b", "1"), file("e", "1")),
		image("whiteout-specification-example",
			layers(layer(file("file1", ""), dir("a"), file("a/file2", ""), dir("b"), dir("c"), file("c/file3", "")), layer(whiteout("file1"), whiteout("a/file2"), whiteout("b"), file("file4", ""))),
			dir("a"), dir("c"), file("c/file3", ""), file("file4", "")),
		image("whiteout-of-a-folder", layers(lower, layer(whiteout("d"))), file("e", "1")),
		image("whiteout-of-nothing", layers(lower, layer(whiteout("nothing"), whiteout("no/where"))), dir("d"), file("d/a", "1"), file("d/b", "1"), file("e", "1")),
		image("whiteout-of-a-symlink", layers(layer(file("a", "1"), symlink("s", "a")), layer(whiteout("s"))), file("a", "1")),
		image("whiteout-of-a-device", layers(layer(char("n", 1, 3), fifo("p")), layer(whiteout("n"), whiteout("p")))),
		image("whiteout-of-one-hard-link", layers(layer(file("a", "1"), link("b", "a")), layer(whiteout("a"))), file("b", "1")),
		image("whiteout-before-what-replaces-it", layers(lower, layer(whiteout("e"), file("e", "2"))), dir("d"), file("d/a", "1"), file("d/b", "1"), file("e", "2")),
		image("whiteout-after-what-replaces-it", layers(lower, layer(file("e", "2"), whiteout("e"))), dir("d"), file("d/a", "1"), file("d/b", "1"), file("e", "2")),
		image("whiteout-before-a-folder-of-its-name", layers(lower, layer(whiteout("d"), dir("d").mode(0o711), file("d/new", "2"))), dir("d").mode(0o711), file("d/new", "2"), file("e", "1")),
		image("whiteout-after-a-folder-of-its-name", layers(lower, layer(dir("d").mode(0o711), file("d/new", "2"), whiteout("d"))), dir("d").mode(0o711), file("d/new", "2"), file("e", "1")).
			umoci(touches),
		image("whiteout-before-an-implied-folder", layers(lower, layer(whiteout("d"), file("d/new", "2"))), implied("d"), file("d/new", "2"), file("e", "1")),
		image("whiteout-after-an-implied-folder", layers(layer(dir("d").owned(7, 7), file("d/a", "1")), layer(file("d/new", "2"), whiteout("d"))), implied("d"), file("d/new", "2")).
			umoci("applies the whiteout after the folder that holds the new file was kept, with the attributes of the hidden one"),
		image("whiteout-then-back", layers(lower, layer(whiteout("d")), layer(dir("d").mode(0o700), file("d/c", "3"))), dir("d").mode(0o700), file("d/c", "3"), file("e", "1")),
		image("whiteout-of-the-layers-own-entry", layers(layer(file("a", "1"), whiteout("a"))), file("a", "1")),
		image("whiteout-by-the-next-layer", layers(layer(file("a", "1"), whiteout("a")), layer(whiteout("a")))),
		image("whiteout-below-a-whiteout", layers(lower, layer(whiteout("d"), whiteout("d/a"))), file("e", "1")),
		image("whiteout-of-a-name-with-dots", layers(layer(file("..a", "1"), file("...", "1"), file(".a", "1")), layer(whiteout("..a"), whiteout("..."))), file(".a", "1")),
		image("whiteout-with-content", layers(layer(file("a", "1")), layer(file(".wh.a", "not empty").mode(0o600))), file("b", "")).nothing(),
		image("whiteout-through-a-linked-parent", layers(layer(dir("usr"), dir("usr/lib"), file("usr/lib/a", "1"), symlink("lib", "usr/lib")), layer(whiteout("lib/a"))),
			symlink("lib", "usr/lib"), dir("usr"), dir("usr/lib")),
		image("whiteout-in-a-folder-that-was-a-symlink", layers(layer(dir("usr"), file("usr/a", "1"), symlink("lib", "usr")), layer(dir("lib"), whiteout("lib/a"), file("lib/b", "2"))),
			dir("lib"), file("lib/b", "2"), dir("usr"), file("usr/a", "1")),
		image("whiteout-of-a-symlink-and-below-it", layers(layer(dir("usr"), file("usr/a", "1"), symlink("lib", "usr")), layer(whiteout("lib/a"), whiteout("lib"), dir("lib"))),
			dir("lib"), dir("usr"), file("usr/a", "1")).
			umoci("follows the symlink that the layer hides"),
		image("whiteout-below-a-symlink-in-a-hidden-folder", layers(layer(dir("usr"), file("usr/a", "1"), dir("d"), symlink("d/lib", "../usr")), layer(whiteout("d/lib/a"), whiteout("d"))),
			dir("usr"), file("usr/a", "1")).
			umoci("follows the symlink in the folder that the layer hides"),
		image("whiteout-below-a-symlink-in-an-opaque-folder", layers(layer(dir("usr"), file("usr/a", "1"), dir("d"), symlink("d/lib", "../usr")), layer(opaque("d/lib"), opaque("d"))),
			dir("d"), dir("usr"), file("usr/a", "1")).
			umoci("follows the symlink in the folder that the layer empties"),
		image("whiteout-in-a-folder-that-was-a-file", layers(layer(file("d", "1")), layer(dir("d"), whiteout("d/a"), file("d/b", "2"))), dir("d"), file("d/b", "2")),
	}
}

// nothing is for an image without files.
func (c Case) nothing() Case {
	c.Want, c.Implied = expectation(nil)
	return c
}

func opaqueCases() []Case {
	lower := layer(dir("d").mode(0o700).owned(1, 2).at(5), file("d/a", "1"), dir("d/e"), file("d/e/b", "1"), file("f", "1"))
	kept, f := dir("d").mode(0o700).owned(1, 2).at(5), file("f", "1")
	spec := layer(dir("a"), dir("a/b"), dir("a/b/c"), file("a/b/c/bar", "1"))
	after := []File{dir("a"), dir("a/b").at(2000), dir("a/b/c").at(2000), file("a/b/c/foo", "2")}
	return []Case{
		image("opaque-alone", layers(lower, layer(opaque("d"))), kept, f),
		image("opaque-before", layers(lower, layer(dir("d"), opaque("d"), file("d/new", "2"))), dir("d"), file("d/new", "2"), f),
		image("opaque-after", layers(lower, layer(dir("d"), file("d/new", "2"), opaque("d"))), dir("d"), file("d/new", "2"), f),
		image("opaque-in-the-middle", layers(lower, layer(file("d/a", "2"), opaque("d"), file("d/new", "2"))), kept, file("d/a", "2"), file("d/new", "2"), f),
		image("opaque-before-specification-example", layers(spec, layer(dir("a"), opaque("a"), dir("a/b").at(2000), dir("a/b/c").at(2000), file("a/b/c/foo", "2"))), after...),
		image("opaque-after-specification-example", layers(spec, layer(dir("a"), dir("a/b").at(2000), dir("a/b/c").at(2000), file("a/b/c/foo", "2"), opaque("a"))), after...).umoci(touches),
		image("opaque-specification-example",
			layers(layer(dir("etc"), file("etc/my-app-config", "1"), dir("bin"), file("bin/my-app-binary", "1"), dir("bin/tools"), file("bin/tools/my-app-tool-one", "1")), layer(dir("bin"), opaque("bin"))),
			dir("bin"), dir("etc"), file("etc/my-app-config", "1")),
		image("explicit-specification-example",
			layers(layer(dir("etc"), file("etc/my-app-config", "1"), dir("bin"), file("bin/my-app-binary", "1"), dir("bin/tools"), file("bin/tools/my-app-tool-one", "1")), layer(dir("bin"), whiteout("bin/my-app-binary"), whiteout("bin/tools"))),
			dir("bin"), dir("etc"), file("etc/my-app-config", "1")),
		image("opaque-after-a-kept-subfolder", layers(lower, layer(dir("d/e").mode(0o711), file("d/e/new", "2"), opaque("d"))), kept, dir("d/e").mode(0o711), file("d/e/new", "2"), f).umoci(touches),
		image("opaque-at-the-root", layers(lower, layer(opaque("."), file("new", "2"))), file("new", "2")),
		image("opaque-hides-no-later-layer", layers(lower, layer(opaque("d")), layer(file("d/a", "3"))), kept, file("d/a", "3"), f),
		image("opaque-in-the-lowest-layer", layers(layer(dir("d"), opaque("d"), file("d/a", "1"))), dir("d"), file("d/a", "1")),
		image("opaque-twice", layers(lower, layer(opaque("d"), file("d/new", "2"), opaque("d"))), kept, file("d/new", "2"), f),
		image("opaque-beside-a-whiteout", layers(lower, layer(opaque("d"), whiteout("d/a"), file("d/a", "2"), whiteout("f"))), kept, file("d/a", "2")),
		image("opaque-in-a-folder-that-was-a-symlink", layers(layer(dir("usr"), file("usr/a", "1"), symlink("lib", "usr")), layer(dir("lib"), opaque("lib"), file("lib/b", "2"))),
			dir("lib"), file("lib/b", "2"), dir("usr"), file("usr/a", "1")),
		image("opaque-before-the-folder-that-was-a-symlink", layers(layer(dir("usr"), file("usr/a", "1"), symlink("lib", "usr")), layer(opaque("lib"), dir("lib"), file("lib/b", "2"))),
			dir("lib"), file("lib/b", "2"), dir("usr"), file("usr/a", "1")).
			umoci("follows the symlink that the layer replaces"),
	}
}
