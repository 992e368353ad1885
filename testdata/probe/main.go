// SPDX-License-Identifier: Apache-2.0

// Command probe is an app for tests: it says what it sees from inside an app
// kernel, or ends in the way that $PROBE names.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Report is what "report" prints after the word REPORT.
type Report struct {
	Args      []string
	Env       []string
	PID       int
	Self      string // where /proc/self leads
	UID, GID  int
	Groups    []int
	Dir       string
	Hostname  string
	Release   string
	Cmdline   string
	Addresses []string
	CPUs      int
	MemTotal  string
	Mounts    []string
	Kmsg      []string          // lines about tables, boot configurations, lockdown and the initramfs
	Writable  []string          // of the standard streams by name, and of files to be made
	Files     map[string]string // modes
	Owners    map[string]string // UID:GID
	Texts     map[string]string // contents
	Xattrs    map[string]string // FILE NAME: value in hexadecimal
	NoFile    syscall.Rlimit
	Terminal  string // the name of a new one
}

// hog is all the memory that there is, in case "panic".
var hog [][]byte

func main() {
	if len(os.Args) > 1 && os.Args[1] == "healthy" { // a health check
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "beside" { // another one, of an app that is PID 1
		name, err := os.ReadFile("/proc/1/comm")
		fmt.Println(string(name), err)
		if string(name) != "probe\n" || os.Getpid() == 1 || syscall.Kill(1, 0) != nil {
			os.Exit(1)
		}
		return
	}
	verb, arg, _ := strings.Cut(os.Getenv("PROBE"), ":")
	n, _ := strconv.Atoi(arg)
	switch verb {
	case "exit":
		os.Exit(n)
	case "signal":
		signal.Reset()
		_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
		time.Sleep(time.Second)
	case "wait": // for the stop signal
		c := make(chan os.Signal, 1)
		signal.Notify(c)
		fmt.Println("WAITING")
		got := <-c
		for got == syscall.SIGURG { // Go's own
			got = <-c
		}
		fmt.Println("GOT", got)
		os.Exit(7)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1)
		fmt.Println("WAITING")
		time.Sleep(time.Hour)
	case "panic": // the kernel's, by running out of memory
		fmt.Println(os.WriteFile("/proc/sys/vm/panic_on_oom", []byte("2"), 0))
		for {
			hog = append(hog, bytes.Repeat([]byte{1}, 16<<20))
		}
	case "restart": // the machine
		fmt.Println(syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART))
	case "beat":
		beat()
	case "flood": // the console
		line := strings.Repeat("x", 79)
		for i := range n {
			fmt.Println(i, line)
		}
	case "orphans": // children that outlive their parent and do not obey
		for range 20 {
			child := exec.Command("/bin/probe")
			child.Env = []string{"PROBE=stubborn"}
			if err := child.Start(); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
	case "left": // a child that outlives its parent, and obeys
		child := exec.Command("/bin/probe")
		child.Env, child.Stdout = []string{"PROBE=wait"}, os.Stdout
		if err := child.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		time.Sleep(time.Second) // it is waiting by then
	case "zombies":
		zombies()
	case "parent": // of a child that it does not wait for
		child := exec.Command("/bin/probe")
		child.Env = []string{"PROBE=exit:0"}
		fmt.Println(child.Start())
	case "cpus":
		cpus(arg == "hidden")
	case "serve":
		l, err := net.Listen("tcp", ":8080")
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for {
			c, err := l.Accept()
			if err == nil {
				fmt.Fprintln(c, "hello from", os.Getenv("HOSTNAME"))
				c.Close()
			}
		}
	default:
		report()
	}
}

func report() {
	var r Report
	r.PID = os.Getpid()
	r.Self, _ = os.Readlink("/proc/self")
	r.Args, r.Env, r.UID, r.GID = os.Args, os.Environ(), os.Getuid(), os.Getgid()
	r.Groups, _ = os.Getgroups()
	r.Dir, _ = os.Getwd()
	r.Hostname, _ = os.Hostname()
	r.Release = read("/proc/sys/kernel/osrelease")
	r.Cmdline = read("/proc/cmdline")
	r.CPUs = strings.Count(read("/proc/cpuinfo"), "processor\t")
	r.MemTotal = strings.SplitN(read("/proc/meminfo"), "\n", 2)[0]
	for _, line := range strings.Split(read("/proc/mounts"), "\n") {
		if f := strings.Fields(line); len(f) > 2 {
			r.Mounts = append(r.Mounts, f[1]+" "+f[2])
		}
	}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		r.Addresses = append(r.Addresses, a.String())
	}
	for _, name := range []string{
		"/dev/stdout", "/dev/stderr", "/dev/fd/1", "/proc/self/fd/1", "/dev/null", "/dev/ptmx",
		"/dev/shm/x", "/tmp/x", "/run/x", "/data/x", "/data/deep/x", "/x", "/etc/x", "/etc/hosts",
	} {
		if f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600); err == nil {
			r.Writable = append(r.Writable, name)
			f.Close()
		}
	}
	r.Files, r.Owners, r.Texts, r.Xattrs = map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}
	for _, name := range []string{"/.tenon", "/left-out/file", "/kept", "/linked", "/etc/resolv.conf", "/dev/ptmx", "/evil", "/data", "/data/file", "/data/deep", "/made"} {
		if info, err := os.Lstat(name); err == nil {
			r.Files[name] = info.Mode().String()
			stat := info.Sys().(*syscall.Stat_t)
			r.Owners[name] = fmt.Sprintf("%d:%d", stat.Uid, stat.Gid)
		}
		for _, attr := range []string{"security.capability", "trusted.test"} {
			value := make([]byte, 256)
			if n, err := syscall.Getxattr(name, attr, value); err == nil {
				r.Xattrs[name+" "+attr] = fmt.Sprintf("%x", value[:n])
			}
		}
	}
	for _, name := range []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/data/file", "/sys/fs/cgroup/cgroup.controllers"} {
		r.Texts[name] = read(name)
	}
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r.NoFile)
	r.Terminal = terminal()
	r.Kmsg = kmsg()
	out, _ := json.Marshal(r)
	fmt.Printf("REPORT %s\n", out)
}

// cpus says how many there are whenever that changes, and what is typed. Hidden, nobody
// can change it.
func cpus(hidden bool) {
	if hidden {
		fmt.Println(syscall.Mount("none", "/sys/devices/system/cpu", "tmpfs", 0, ""))
	}
	go func() {
		console, err := os.Open("/dev/console")
		if err != nil {
			fmt.Println(err)
			return
		}
		for lines := bufio.NewScanner(console); lines.Scan(); {
			fmt.Println("TYPED", lines.Text())
		}
	}()
	for before := 0; ; time.Sleep(10 * time.Millisecond) {
		n := strings.Count(read("/proc/cpuinfo"), "processor\t")
		if n != before {
			fmt.Println("CPUS", n)
		}
		before = n
	}
}

// beat computes, and says ten times a second how far it got, and which interrupts came that
// only other CPUs send, or that nobody expects.
func beat() {
	sum := sha256.Sum256(nil)
	for n := 0; ; n++ {
		for until := time.Now().Add(100 * time.Millisecond); time.Now().Before(until); {
			sum = sha256.Sum256(sum[:])
		}
		var foreign []string
		for _, line := range strings.Split(read("/proc/interrupts"), "\n") {
			name, counts, _ := strings.Cut(strings.TrimSpace(line), ":")
			switch name {
			case "CAL", "RES", "TLB", "NMI", "SPU", "ERR", "MCE", "TRM", "THR":
				foreign = append(foreign, name+"="+strings.Fields(counts)[0])
			}
		}
		fmt.Println("BEAT", n, strings.Count(read("/proc/cpuinfo"), "processor\t"), strings.Join(foreign, " "))
	}
}

// terminal opens a new one and returns its name.
func terminal() string {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var n uint32
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGPTN, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return errno.Error()
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	if _, err := os.Stat(name); err != nil {
		return err.Error()
	}
	return name
}

// zombies makes orphans that end, and counts those that nobody reaps.
func zombies() {
	for range 10 {
		parent := exec.Command("/bin/probe")
		parent.Env = []string{"PROBE=parent"}
		if err := parent.Run(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	time.Sleep(time.Second)
	count := 0
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if strings.Contains(read("/proc/"+e.Name()+"/stat"), ") Z ") {
			count++
		}
	}
	fmt.Println("ZOMBIES", count)
}

func read(name string) string {
	b, _ := os.ReadFile(name)
	return strings.TrimSpace(string(b))
}

// kmsg picks lines of the kernel's log; only root may read it.
func kmsg() (lines []string) {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	fd := int(f.Fd())
	_ = syscall.SetNonblock(fd, true)
	buf := make([]byte, 8192)
	for {
		n, err := syscall.Read(fd, buf)
		if err != nil || n <= 0 {
			return lines
		}
		s := bufio.NewScanner(strings.NewReader(string(buf[:n])))
		for s.Scan() {
			for _, word := range []string{"Table Upgrade", "found in initrd", "bootconfig", "ockdown", "microcode", "RAMDISK", "sealed to"} {
				if strings.Contains(s.Text(), word) {
					lines = append(lines, s.Text())
					break
				}
			}
		}
	}
}
