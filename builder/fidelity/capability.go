// SPDX-License-Identifier: Apache-2.0

package fidelity

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// CapabilityXattr is the extended attribute that holds a file's capabilities.
const CapabilityXattr = "security.capability"

// The forms of the attribute: include/uapi/linux/capability.h. Version 1 is one
// that kernels read and no longer let anyone write.
const (
	revisionMask  = 0xff000000
	revision2     = 0x02000000
	revision3     = 0x03000000
	flagEffective = 1
	size2         = 20
	size3         = 24 // with the user id that is root in the name space
)

// FormatCapability writes a value of CapabilityXattr in the manner of cap_to_text(3), for
// example "cap_net_raw=ep": the capabilities, and of each whether it is in the
// effective, inheritable and permitted set. One that holds in the user name
// space of another root than 0 ends in " rootid=UID". What the kernel does not
// take is an error.
func FormatCapability(value []byte) (string, error) {
	if len(value) < 4 {
		return "", fmt.Errorf("%d bytes are no capabilities", len(value))
	}
	magic := binary.LittleEndian.Uint32(value)
	suffix := ""
	switch {
	case magic&revisionMask == revision2 && len(value) == size2:
	case magic&revisionMask == revision3 && len(value) == size3:
		if root := binary.LittleEndian.Uint32(value[size2:]); root != 0 {
			suffix = fmt.Sprintf(" rootid=%d", root)
		}
	default:
		return "", fmt.Errorf("%d bytes of version %d are no capabilities that the kernel takes", len(value), magic>>24)
	}
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(value[4+4*i:])) }
	permitted, inheritable := word(0)|word(2)<<32, word(1)|word(3)<<32
	var groups []string
	for _, g := range []struct {
		set   uint64
		flags string
	}{{permitted &^ inheritable, "p"}, {permitted & inheritable, "ip"}, {inheritable &^ permitted, "i"}} {
		if g.set == 0 {
			continue
		}
		if magic&flagEffective != 0 {
			g.flags = "e" + g.flags
		}
		groups = append(groups, strings.Join(capabilityNames(g.set), ",")+"="+g.flags)
	}
	if len(groups) == 0 {
		groups = []string{"="}
	}
	return strings.Join(groups, " ") + suffix, nil
}

func capabilityNames(set uint64) []string {
	known := strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable
		net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace
		sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control
		setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore`)
	var names []string
	for i := range 64 {
		switch {
		case set>>i&1 == 0:
		case i < len(known):
			names = append(names, "cap_"+known[i])
		default:
			names = append(names, fmt.Sprint(i)) // of a newer kernel
		}
	}
	return names
}
