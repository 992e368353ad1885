// SPDX-License-Identifier: Apache-2.0

package alloc

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// MaxCPUs is how many CPUs a host may have: as many as Linux on x86-64 can be
// configured for (NR_CPUS).
const MaxCPUs = 8192

// CPUSet is a set of CPU numbers, ascending and without duplicates. As text, it has
// the kernel's list format, such as "0-3,8", see
// Documentation/admin-guide/cputopology.rst; the empty set is "".
type CPUSet []int

// ParseCPUs reads the list format. White space around it is ignored, as files in
// sysfs end in a newline. Ranges may come in any order and overlap. Strides such as
// "0-31:2/4" are refused: no file that is read here has them.
func ParseCPUs(s string) (CPUSet, error) {
	list := strings.TrimSpace(s)
	if list == "" {
		return nil, nil
	}
	var seen [MaxCPUs]bool
	top := 0
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := parseCPU(first)
		if err != nil {
			return nil, fmt.Errorf("CPU list %s: %w", quoted(list), err)
		}
		to, err := parseCPU(last)
		if err != nil {
			return nil, fmt.Errorf("CPU list %s: %w", quoted(list), err)
		}
		if to < from {
			return nil, fmt.Errorf("CPU list %s: the range %s goes backwards", quoted(list), part)
		}
		for cpu := from; cpu <= to; cpu++ {
			seen[cpu] = true
		}
		top = max(top, to)
	}
	return setOf(seen[:top+1]), nil
}

func parseCPU(s string) (int, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%s is not a number", quoted(s))
	}
	n, err := strconv.Atoi(s)
	if err != nil || n >= MaxCPUs {
		return 0, fmt.Errorf("%s is beyond %d", quoted(s), MaxCPUs-1)
	}
	return n, nil
}

// quoted shortens what a stranger wrote.
func quoted(s string) string {
	if len(s) > 64 {
		return strconv.Quote(s[:64]) + "..."
	}
	return strconv.Quote(s)
}

func setOf(seen []bool) CPUSet {
	var out CPUSet
	for cpu, in := range seen {
		if in {
			out = append(out, cpu)
		}
	}
	return out
}

// NewCPUSet returns the set of those numbers.
func NewCPUSet(cpus ...int) CPUSet {
	out := slices.Clone(cpus)
	slices.Sort(out)
	return slices.Compact(out)
}

// String returns the list format, as the kernel writes it.
func (s CPUSet) String() string {
	var out []byte
	for i := 0; i < len(s); {
		j := i
		for j+1 < len(s) && s[j+1] == s[j]+1 {
			j++
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(s[i]), 10)
		if j > i {
			out = append(out, '-')
			out = strconv.AppendInt(out, int64(s[j]), 10)
		}
		i = j + 1
	}
	return string(out)
}

// MarshalText returns the list format.
func (s CPUSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads the list format.
func (s *CPUSet) UnmarshalText(text []byte) (err error) {
	*s, err = ParseCPUs(string(text))
	return err
}

// Has says whether the set has that CPU.
func (s CPUSet) Has(cpu int) bool {
	_, ok := slices.BinarySearch(s, cpu)
	return ok
}

// Union returns what is in one of them.
func (s CPUSet) Union(other CPUSet) CPUSet {
	if len(other) == 0 {
		return s
	}
	return NewCPUSet(append(slices.Clone(s), other...)...)
}

// Minus returns what is in s alone.
func (s CPUSet) Minus(other CPUSet) CPUSet {
	return s.filter(func(cpu int) bool { return !other.Has(cpu) })
}

// And returns what is in both.
func (s CPUSet) And(other CPUSet) CPUSet { return s.filter(other.Has) }

func (s CPUSet) filter(keep func(cpu int) bool) CPUSet {
	var out CPUSet
	for _, cpu := range s {
		if keep(cpu) {
			out = append(out, cpu)
		}
	}
	return out
}

// parseMask reads the kernel's mask format: 32-bit words in hexadecimal, the
// highest first, separated by commas.
func parseMask(s string) (CPUSet, error) {
	words := strings.Split(strings.TrimSpace(s), ",")
	if len(words) > MaxCPUs/32 {
		return nil, errors.New("CPU mask: too long")
	}
	var out CPUSet
	slices.Reverse(words)
	for i, word := range words {
		n, err := strconv.ParseUint(word, 16, 32)
		if err != nil {
			return nil, fmt.Errorf("CPU mask %s: %s is not a word of 32 bits in hexadecimal", quoted(s), quoted(word))
		}
		for ; n != 0; n &= n - 1 {
			out = append(out, i*32+bits.TrailingZeros64(n))
		}
	}
	return out, nil
}

// mask returns the mask format.
func (s CPUSet) mask() string {
	if len(s) == 0 {
		return "0"
	}
	words := make([]uint32, s[len(s)-1]/32+1)
	for _, cpu := range s {
		words[cpu/32] |= 1 << (cpu % 32)
	}
	slices.Reverse(words)
	out := strconv.FormatUint(uint64(words[0]), 16)
	for _, word := range words[1:] {
		out += fmt.Sprintf(",%08x", word)
	}
	return out
}
