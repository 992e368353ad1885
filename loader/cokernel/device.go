// SPDX-License-Identifier: Apache-2.0

package cokernel

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is module/mortise.h in Go: the structs have its layout, and the words
// are explained there.

const (
	devicePath = "/dev/mortise"
	abiVersion = 2
	maxName    = 64
	maxCPUs    = 64 // of an instance
	maxRanges  = 16
	maxListed  = 32
	pageblock  = 2 << 20 // bytes: memory is reserved in multiples of it
)

type infoArg struct {
	version, refusals, unsignedAllowed, locked, pieces, instances uint32
	_                                                             [2]uint32
}

type nameArg struct {
	version, _ uint32
	name       [maxName]byte
}

type listArg struct {
	version, count uint32
	names          [maxListed][maxName]byte
}

type memoryArg struct {
	version uint32
	node    int32
	bytes   uint64
}

type cpuArg struct {
	version, cpu, flags, timeout uint32
}

const cpuIdle = 1

type loadArg struct {
	version, flags   uint32
	image, initrd    int32
	statement        uint64
	statementSize    uint32
	possibleCPUs     uint32
	commandLine      uint64
	commandLineBytes uint32
	_                uint32
}

const loadDetached = 1

type rangeArg struct {
	start, bytes uint64
	node         int32
	_            uint32
}

type statusArg struct {
	version, state, end, alive, told, cpuCount, rangeCount, _ uint32
	low, zone, zoneBytes, started, idle                       uint64
	cpus                                                      [maxCPUs]uint32
	ranges                                                    [maxRanges]rangeArg
}

// States and ends of statusArg.
const (
	stateEmpty = iota
	stateLoaded
	stateRunning
	stateEnded
)

const (
	endNone = iota
	endOff
	endRestart
	endPanic
	endStopped
)

// Streams of the channel ioctl.
const (
	streamConsole = iota
	streamControl
)

// ioctl numbers, as _IOC of asm-generic/ioctl.h makes them.
const (
	iocNone, iocWrite, iocRead = 0, 1, 2

	ioctlInfo    = (iocRead|iocWrite)<<30 | uint32(unsafe.Sizeof(infoArg{}))<<16 | 'm'<<8 | 0x80
	ioctlList    = (iocRead|iocWrite)<<30 | uint32(unsafe.Sizeof(listArg{}))<<16 | 'm'<<8 | 0x81
	ioctlCreate  = iocWrite<<30 | uint32(unsafe.Sizeof(nameArg{}))<<16 | 'm'<<8 | 0x82
	ioctlOpen    = iocWrite<<30 | uint32(unsafe.Sizeof(nameArg{}))<<16 | 'm'<<8 | 0x83
	ioctlReserve = iocWrite<<30 | uint32(unsafe.Sizeof(memoryArg{}))<<16 | 'm'<<8 | 0x84
	ioctlTake    = iocWrite<<30 | uint32(unsafe.Sizeof(cpuArg{}))<<16 | 'm'<<8 | 0x85
	ioctlGive    = iocWrite<<30 | uint32(unsafe.Sizeof(cpuArg{}))<<16 | 'm'<<8 | 0x86
	ioctlLoad    = iocWrite<<30 | uint32(unsafe.Sizeof(loadArg{}))<<16 | 'm'<<8 | 0x87
	ioctlStart   = iocNone<<30 | 'm'<<8 | 0x88
	ioctlStop    = iocNone<<30 | 'm'<<8 | 0x89
	ioctlDestroy = iocNone<<30 | 'm'<<8 | 0x8a
	ioctlStatus  = (iocRead|iocWrite)<<30 | uint32(unsafe.Sizeof(statusArg{}))<<16 | 'm'<<8 | 0x8b
	ioctlChannel = iocNone<<30 | 'm'<<8 | 0x8c
)

// device is an open /dev/mortise.
type device struct{ file *os.File }

func openDevice() (*device, error) {
	f, err := os.OpenFile(devicePath, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &device{f}, nil
}

func (d *device) Close() error { return d.file.Close() }

// call does an ioctl and returns what it returns. It may take long, and a signal may
// interrupt it: those that wait begin again.
func call(fd uintptr, number uint32, arg unsafe.Pointer) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(number), uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

func (d *device) info() (*infoArg, error) {
	arg := &infoArg{version: abiVersion}
	_, err := call(d.file.Fd(), ioctlInfo, unsafe.Pointer(arg))
	if errors.Is(err, unix.EPROTO) || errors.Is(err, unix.ENOTTY) {
		return nil, fmt.Errorf("the module mortise has another version than this mortise, which wants %d", abiVersion)
	}
	return arg, err
}

// list returns the names of all instances.
func (d *device) list() ([]string, error) {
	arg := &listArg{version: abiVersion}
	if _, err := call(d.file.Fd(), ioctlList, unsafe.Pointer(arg)); err != nil {
		return nil, err
	}
	var names []string
	for _, name := range arg.names[:arg.count] {
		names = append(names, unix.ByteSliceToString(name[:]))
	}
	return names, nil
}

// object is a descriptor of an instance in the module.
type object struct{ file *os.File }

// create makes an instance, and open finds one; ENOENT: there is none.
func (d *device) create(name string) (*object, error) { return d.object(ioctlCreate, name) }
func (d *device) open(name string) (*object, error)   { return d.object(ioctlOpen, name) }

func (d *device) object(number uint32, name string) (*object, error) {
	arg := &nameArg{version: abiVersion}
	if len(name) >= maxName || strings.ContainsRune(name, 0) {
		return nil, unix.EINVAL
	}
	copy(arg.name[:], name)
	fd, err := call(d.file.Fd(), number, unsafe.Pointer(arg))
	if err != nil {
		return nil, err
	}
	f, err := pollable(fd, "mortise:"+name)
	if err != nil {
		return nil, err
	}
	return &object{f}, nil
}

// pollable makes a file that Go's runtime waits for.
func pollable(fd int, name string) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (o *object) call(number uint32, arg unsafe.Pointer) (n int, err error) {
	conn, err := o.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := conn.Control(func(fd uintptr) { n, err = call(fd, number, arg) }); failed != nil {
		return 0, failed
	}
	return n, err
}

// reserve takes memory from the host, until ctx ends: hundreds of GiB take a while.
func (o *object) reserve(ctx context.Context, node int, bytes int64) error {
	arg := &memoryArg{version: abiVersion, node: int32(node), bytes: uint64(bytes)}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer interrupt(ctx, unix.Gettid())()
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, o.file.Fd(), uintptr(ioctlReserve), uintptr(unsafe.Pointer(arg)))
		switch {
		case errno == 0:
			return nil
		case errno != unix.EINTR:
			return errno
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// interrupt has a thread's system call end when ctx does, until stop is called. Go uses SIGURG
// itself, and expects more of them than it sends.
func interrupt(ctx context.Context, thread int) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
		case <-done:
			return
		}
		for { // the call may not have begun
			_ = unix.Tgkill(os.Getpid(), thread, unix.SIGURG)
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}()
	return func() { close(done); <-ended }
}

// take takes a CPU from the host. A guest that runs has the time to agree.
func (o *object) take(cpu int, idle bool) error {
	arg := &cpuArg{version: abiVersion, cpu: uint32(cpu), timeout: uint32(resizeTimeout.Milliseconds())}
	if idle {
		arg.flags = cpuIdle
	}
	_, err := o.call(ioctlTake, unsafe.Pointer(arg))
	return err
}

func (o *object) give(cpu int) error {
	arg := &cpuArg{version: abiVersion, cpu: uint32(cpu), timeout: uint32(resizeTimeout.Milliseconds())}
	_, err := o.call(ioctlGive, unsafe.Pointer(arg))
	return err
}

// image is what load loads.
type image struct {
	kernel       *os.File
	initrd       *os.File
	detached     bool
	commandLine  string // of a detached one
	statement    []byte // nil: none
	possibleCPUs int
}

func (o *object) load(i image) error {
	arg := &loadArg{version: abiVersion, image: int32(i.kernel.Fd()), initrd: -1, statementSize: uint32(len(i.statement)), possibleCPUs: uint32(i.possibleCPUs)}
	var pins runtime.Pinner // addresses in arg are numbers to Go
	defer pins.Unpin()
	if len(i.statement) > 0 {
		pins.Pin(&i.statement[0])
		arg.statement = uint64(uintptr(unsafe.Pointer(&i.statement[0])))
	}
	if i.initrd != nil {
		arg.initrd = int32(i.initrd.Fd())
	}
	if i.detached {
		arg.flags = loadDetached
	}
	if text := []byte(i.commandLine); i.detached && len(text) > 0 {
		pins.Pin(&text[0])
		arg.commandLine, arg.commandLineBytes = uint64(uintptr(unsafe.Pointer(&text[0]))), uint32(len(text))
	}
	_, err := o.call(ioctlLoad, unsafe.Pointer(arg))
	return err
}

func (o *object) start() error   { return o.do(ioctlStart) }
func (o *object) stop() error    { return o.do(ioctlStop) }
func (o *object) destroy() error { return o.do(ioctlDestroy) }

func (o *object) do(number uint32) error {
	_, err := o.call(number, nil)
	return err
}

func (o *object) status() (*statusArg, error) {
	arg := &statusArg{version: abiVersion}
	_, err := o.call(ioctlStatus, unsafe.Pointer(arg))
	return arg, err
}

// channel opens the console or the control channel.
func (o *object) channel(stream int) (*os.File, error) {
	n, err := o.channelFD(stream)
	if err != nil {
		return nil, err
	}
	return pollable(n, "mortise-channel")
}

func (o *object) channelFD(stream int) (n int, err error) {
	conn, err := o.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	failed := conn.Control(func(fd uintptr) {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(ioctlChannel), uintptr(stream))
		if n = int(r); errno != 0 {
			err = errno
		}
	})
	return n, errors.Join(failed, err)
}

// wait waits until the guest has ended: then, reading ends.
func (o *object) wait() { _, _ = io.Copy(io.Discard, o.file) }

func (o *object) Close() error { return o.file.Close() }
