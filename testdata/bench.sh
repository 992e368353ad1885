#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# bench.sh TENON IMAGE: boots redis's root file system under QEMU (emulation)
# with the kernel that tenon made and with Debian's own, and prints the time
# from QEMU's start until PID 1 has mounted everything and misses its network
# card (there is none here, as Debian's kernel has no driver built in): medians
# of five, and their ratio.
set -eu

tenon=$1 image=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$tenon" build "oci:$image" -o "$work/sealed" >/dev/null
"$tenon" build --detached "oci:$image" -o "$work/detached" >/dev/null
layer() { # BUNDLE WORD: the blob of the layer whose media type has the word
	local digest
	digest=$("$tenon" inspect --format json "$1" | sed -n "/\"mediaType\": \".*$2/,/\"digest\"/s/.*\"digest\": \"sha256:\(.*\)\".*/\1/p" | head -n 1)
	echo "$1/blobs/sha256/$digest"
}
memory=$("$tenon" inspect --format json "$work/sealed" | sed -n '/"memory"/,/}/s/.*"min": \([0-9]*\).*/\1/p')

boot() { # QEMU's arguments: prints milliseconds
	local start pid
	start=$(date +%s%N)
	qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m "$((memory >> 20))" -nodefaults -display none -no-reboot \
		-serial "file:$work/console" "$@" &
	pid=$!
	until grep -q 'appinit: error: the bundle claims a network interface' "$work/console" 2>/dev/null; do
		kill -0 "$pid" 2>/dev/null || { cat "$work/console" >&2; exit 1; }
		sleep 0.01
	done
	echo $((($(date +%s%N) - start) / 1000000))
	kill -KILL "$pid"
	wait "$pid" 2>/dev/null || true
	rm -f "$work/console"
}
median() { sort -n | sed -n 3p; }

debian=$(ls /boot/vmlinuz-* | tail -n 1)
for _ in 1 2 3 4 5; do
	boot -kernel "$(layer "$work/sealed" kernel.v1)" >>"$work/ours"
	boot -kernel "$debian" -initrd "$(layer "$work/detached" initramfs)" \
		-append 'console=ttyS0 quiet rdinit=/.tenon/init initramfs_options=size=90%' >>"$work/theirs"
done
ours=$(median <"$work/ours") theirs=$(median <"$work/theirs")
echo "boot to PID 1 with redis's root file system, sealed kernel of tenon: $ours ms"
echo "the same root file system with $(basename "$debian"): $theirs ms"
echo "ratio: $(echo "scale=2; $ours / $theirs" | bc)"
