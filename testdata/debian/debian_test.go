// SPDX-License-Identifier: Apache-2.0

package debian

import "testing"

func TestBoot(t *testing.T) {
	g := Boot(t, Machine{})
	t.Log(g.Shell(t, "uname -a; cat /proc/mounts /proc/interrupts; lscpu | tail -30; touch $PWD/x /etc/y "+g.Dir+"/z; cat /sys/fs/cgroup/cgroup.controllers; ls /tmp"))
	t.Log(g.Run(t, Command{Args: []string{"sh", "-c", "kill -9 $$"}}), g.Run(t, Command{Args: []string{"nothing"}}))
}
