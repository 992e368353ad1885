// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// constant is a number of mortise.h, and what device.go has for it.
type constant struct {
	name  string
	value uint64
}

var constants = []constant{
	{"MORTISE_VERSION", abiVersion}, {"MORTISE_NAME", maxName}, {"MORTISE_INSTANCES", maxListed}, {"MORTISE_CPUS", maxCPUs}, {"MORTISE_RANGES", maxRanges},
	{"MORTISE_CPU_IDLE", cpuIdle}, {"MORTISE_LOAD_DETACHED", loadDetached},
	{"MORTISE_EMPTY", stateEmpty}, {"MORTISE_LOADED", stateLoaded}, {"MORTISE_RUNNING", stateRunning}, {"MORTISE_ENDED", stateEnded},
	{"MORTISE_END_NONE", endNone}, {"MORTISE_END_OFF", endOff}, {"MORTISE_END_RESTART", endRestart}, {"MORTISE_END_PANIC", endPanic}, {"MORTISE_END_STOPPED", endStopped},
	{"MORTISE_CONSOLE", streamConsole}, {"MORTISE_CONTROL", streamControl},
	{"MORTISE_INFO", uint64(ioctlInfo)}, {"MORTISE_LIST", uint64(ioctlList)}, {"MORTISE_CREATE", uint64(ioctlCreate)}, {"MORTISE_OPEN", uint64(ioctlOpen)},
	{"MORTISE_RESERVE", uint64(ioctlReserve)}, {"MORTISE_TAKE", uint64(ioctlTake)}, {"MORTISE_GIVE", uint64(ioctlGive)}, {"MORTISE_LOAD", uint64(ioctlLoad)},
	{"MORTISE_START", uint64(ioctlStart)}, {"MORTISE_STOP", uint64(ioctlStop)}, {"MORTISE_DESTROY", uint64(ioctlDestroy)},
	{"MORTISE_STATUS", uint64(ioctlStatus)}, {"MORTISE_CHANNEL", uint64(ioctlChannel)},
}

// structure is one of device.go that is an argument of the module.
type structure struct {
	name    string // in mortise.h
	size    uintptr
	offsets []uintptr // of its fields
}

func structs() []structure {
	var out []structure
	for _, s := range []struct {
		name  string
		value any
	}{
		{"mortise_info", infoArg{}}, {"mortise_name", nameArg{}}, {"mortise_list", listArg{}}, {"mortise_memory", memoryArg{}}, {"mortise_cpu", cpuArg{}},
		{"mortise_load", loadArg{}}, {"mortise_range", rangeArg{}}, {"mortise_status", statusArg{}},
	} {
		typ := reflect.TypeOf(s.value)
		x := structure{name: s.name, size: typ.Size()}
		for i := range typ.NumField() {
			x.offsets = append(x.offsets, typ.Field(i).Offset)
		}
		out = append(out, x)
	}
	return out
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func matches(text, pattern string) []string {
	var out []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// All that mortise.h has, TestE2EHeader compares.
func TestHeader(t *testing.T) {
	header := read(t, "module/mortise.h")
	for _, name := range matches(header, `(?m)^struct (\w+) \{`) {
		if !slices.ContainsFunc(structs(), func(s structure) bool { return s.name == name }) {
			t.Errorf("struct %s is not compared", name)
		}
	}
	// The limits of what Go passes on as it is, and the bits that refusals knows.
	unused := []string{"MORTISE_H", "MORTISE_STATEMENT", "MORTISE_CMDLINE"}
	for _, name := range matches(header, `(?m)^#define (MORTISE_\w+)`) {
		known := slices.Contains(unused, name) || strings.HasPrefix(name, "MORTISE_NO_")
		if !known && !slices.ContainsFunc(constants, func(c constant) bool { return c.name == name }) {
			t.Errorf("%s is not compared", name)
		}
	}
}

// docs/cokernel.md lists the ioctls, why a host is refused, and what errors of loading
// mean, and no others.
func TestDocs(t *testing.T) {
	header, doc := read(t, "module/mortise.h"), read(t, "../../docs/cokernel.md")
	for what, pattern := range map[string][2]string{
		"ioctls":   {"(?m)^#define (MORTISE_\\w+)\\s+_IO", "(?m)^\\| `(MORTISE_[A-Z]+)`"},
		"refusals": {"(?m)^#define (MORTISE_NO_\\w+)", "(?m)^\\| `(MORTISE_NO_\\w+)`"},
	} {
		if in, out := matches(header, pattern[0]), matches(doc, pattern[1]); !slices.Equal(in, out) || len(in) == 0 {
			t.Errorf("%s: mortise.h has %q, the documentation %q", what, in, out)
		}
	}
	for _, name := range matches(header, `(?m)^#define (MORTISE_NO_\w+)`) {
		_, row, _ := strings.Cut(doc, "| `"+name+"` |")
		row, _, _ = strings.Cut(row, "\n")
		bit := slices.Index(regexp.MustCompile(`MORTISE_NO_\w+`).FindAllString(header, -1), name)
		if text, _, _ := strings.Cut(refusals(1<<bit), " ("); !strings.Contains(row, text) {
			t.Errorf("%s is %q in mortise info, and %q in the documentation", name, text, row)
		}
	}
	layout := read(t, "module/internal.h") + read(t, "guest/src/zone.h")
	for _, at := range matches(layout, `(?m)^#define \w*(?:AREA_\w+|_OFFSET|ZONE_SIZE)\s+0x0*([0-9a-f]+)u?\b`) {
		if !strings.Contains(doc, "+0x"+at) {
			t.Errorf("the memory map lacks +0x%s", at)
		}
	}
	source := read(t, "cokernel.go")
	_, explained, _ := strings.Cut(source, "func explain(")
	explained, _, _ = strings.Cut(explained, "\n}\n")
	_, table, _ := strings.Cut(doc, "## Troubleshooting")
	if in, out := matches(explained, `unix\.(E[A-Z]+)`), matches(table, "`(E[A-Z]+)`"); len(in) == 0 || slices.ContainsFunc(in, func(errno string) bool { return !slices.Contains(out, errno) }) {
		t.Errorf("cokernel.go explains %q, the documentation %q", in, out)
	}
	for _, text := range matches(explained, `(?m)why = "(.*)"$`) {
		if !strings.Contains(table, text) {
			t.Errorf("the documentation lacks %q", text)
		}
	}
}

// dkmsPackage returns the module's name for DKMS, such as "mortise/2".
func dkmsPackage(t *testing.T) string {
	t.Helper()
	versions := matches(read(t, "module/dkms.conf"), `PACKAGE_VERSION="(.*)"`)
	if len(versions) != 1 {
		t.Fatalf("dkms.conf has versions %q", versions)
	}
	return "mortise/" + versions[0]
}

// DKMS, the module and the documentation say the same version.
func TestModuleVersion(t *testing.T) {
	want := []string{dkmsPackage(t)}
	if module := matches(read(t, "module/main.c"), `MODULE_VERSION\("(.*)"\)`); len(module) != 1 || "mortise/"+module[0] != want[0] {
		t.Errorf("dkms.conf has %q, main.c %q", want, module)
	}
	if doc := matches(read(t, "../../docs/cokernel.md"), `dkms install (\S+)`); !slices.Equal(doc, want) {
		t.Errorf("dkms.conf has %q, docs/cokernel.md %q", want, doc)
	}
}
