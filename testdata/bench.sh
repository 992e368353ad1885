#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# bench.sh TENON REDIS NGINX: compares with peers, in turn, and prints medians and their
# ratio.
#
# Booting: redis's root file system under QEMU (emulation) with the kernel that
# tenon made and with Debian's own, from QEMU's start until PID 1 has mounted
# everything and misses its network card (there is none here, as Debian's kernel
# has no driver built in).
#
# PID 1: from its exec to the app's, under emulation and without DHCP, against a
# PID 1 in C that mounts /dev and does nothing else (testdata/started.c): what
# QEMU takes to translate the kernel's own part, mostly.
#
# Verifying: a sealed bundle of about 100 MB, against openssl's digest of the same
# bytes. Signing: a kernel of about 8 MB, three signatures against sbsign's one.
#
# Flattening: nginx's image to a compressed initramfs, both digests of the layer
# checked, against umoci, cpio and zstd, and against gzip, bsdtar and zstd, which
# check nothing. Peak memory, for that image and for one of eight times its size.
set -eu

tenon=$1 image=$2 nginx=$3
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
median() { sort -n "$1" | sed -n "$((($(wc -l <"$1") + 1) / 2))p"; }

debian=$(ls /boot/vmlinuz-* | tail -n 1)
for _ in 1 2 3 4 5; do
	boot -kernel "$(layer "$work/sealed" kernel.v1)" >>"$work/ours"
	boot -kernel "$debian" -initrd "$(layer "$work/detached" initramfs)" \
		-append 'console=ttyS0 quiet rdinit=/.tenon/init initramfs_options=size=90%' >>"$work/theirs"
done
ours=$(median "$work/ours") theirs=$(median "$work/theirs")
echo "boot to PID 1 with redis's root file system, sealed kernel of tenon: $ours ms"
echo "the same root file system with $(basename "$debian"): $theirs ms"
echo "ratio: $(echo "scale=2; $ours / $theirs" | bc)"

mkdir -p "$work/pid1/bin"
gcc -Os -static -o "$work/pid1/bin/started" "$(dirname "$0")/started.c"
printf '%s\n' 'description = "how long PID 1 takes"' '[app]' 'entrypoint = ["/bin/started"]' '[claims]' \
	'cpus = { min = 1, max = 1 }' 'memory = { min = "4MiB", max = "1GiB" }' 'net = { min = 1, max = 1 }' >"$work/pid1.toml"
"$tenon" build --detached -r "$work/pid1.toml" -o "$work/started" "dir:$work/pid1" >/dev/null
started() { sed -n 's/^STARTED \([0-9]*\).*/\1/p'; }
for _ in $(seq 11); do
	"$tenon" run -q --allow-unsigned --accel tcg "$work/started" 2>/dev/null | started >>"$work/appinit"
	timeout 60 qemu-system-x86_64 -accel tcg,thread=multi -cpu max -m 128 -nodefaults -display none -no-reboot -serial stdio \
		-kernel "$(layer "$work/started" kernel.v1)" -initrd "$(layer "$work/started" initramfs)" \
		-append 'console=ttyS0 quiet rdinit=/bin/started' | started >>"$work/least"
done
appinit=$(median "$work/appinit") least=$(median "$work/least")
echo "PID 1, from its exec to the app's: $appinit us (at best $(sort -n "$work/appinit" | head -n 1)), the least that one in C takes: $least us"

# sealed NAME MIB: builds a bundle with that much that cannot be compressed.
sealed() {
	mkdir -p "$work/rootfs/bin"
	cp /bin/busybox "$work/rootfs/bin/"
	head -c "$2M" /dev/urandom >"$work/rootfs/random"
	"$tenon" recipe show redis | sed 's|^\[match\]|[app]\nentrypoint = ["/bin/busybox"]\n\n[match]|' >"$work/random.toml"
	"$tenon" build -r "$work/random.toml" --name "$1" --key "$work/keys/signing.key" -o "$work/$1" "dir:$work/rootfs" >/dev/null
}
time_of() { # NAME COMMAND...: appends microseconds
	local name=$1 start
	shift
	start=$(date +%s%N)
	"$@" >/dev/null 2>&1 || { echo "failed: $*" >&2; exit 1; }
	echo $((($(date +%s%N) - start) / 1000)) >>"$work/$name"
}
compare() { # WHAT OURS PEER THEIRS
	local ours theirs
	ours=$(median "$work/$2") theirs=$(median "$work/$4")
	echo "$1: $ours us, $3: $theirs us, ratio: $(echo "scale=2; $ours / $theirs" | bc)"
}
"$tenon" key create "$work/keys" 2>/dev/null
openssl x509 -in "$work/keys/signing.crt" -out "$work/leaf.crt" # sbsign takes one certificate
sealed large 95
sealed small 3
large=$(layer "$work/large" kernel.v1) small=$(layer "$work/small" kernel.v1)
for _ in $(seq 11); do
	time_of verify "$tenon" verify --cert "$work/keys/ca.crt" "$work/large"
	time_of digest openssl dgst -sha256 "$large"
	time_of sign "$tenon" sign --key "$work/keys/signing.key" "$work/small"
	time_of sbsign sbsign --key "$work/keys/signing.key" --cert "$work/leaf.crt" --output "$work/signed" "$small"
done
compare "verifying a bundle of $(($(stat -c %s "$large") >> 20)) MiB" verify "openssl dgst -sha256" digest
compare "three signatures over a kernel of $(($(stat -c %s "$small") >> 20)) MiB" sign "sbsign's one" sbsign

one_layer() { # IMAGE: the blob of its only layer, the largest
	ls -S "$1"/blobs/sha256/* | head -n 1
}
rootfs() { # IMAGE OUT
	"$tenon" rootfs "oci:$1" -o "$2" --allow-drop usr/bin/ping --allow-drop '*/usr/bin/ping'
}
by_umoci() { # IMAGE OUT
	rm -rf "$work/unpacked"
	umoci unpack --image "$1:latest" "$work/unpacked"
	(cd "$work/unpacked/rootfs" && find . | cpio -o -H newc --quiet) | zstd -q -f -3 -T2 -o "$2"
}
by_bsdtar() { # IMAGE OUT
	gzip -dc "$(one_layer "$1")" | bsdtar -cf - --format newc @- | zstd -q -f -3 -T2 -o "$2"
}
peak() { # IMAGE: prints KiB
	command time -f %M -o "$work/peak" "$tenon" rootfs "oci:$1" -o "$work/peak.cpio.zst" --allow-drop '**/ping' >/dev/null 2>&1
	cat "$work/peak"
}
for _ in $(seq 9); do
	time_of flatten rootfs "$nginx" "$work/ours.cpio.zst"
	time_of bsdtar by_bsdtar "$nginx" "$work/bsdtar.cpio.zst"
	time_of umoci by_umoci "$nginx" "$work/umoci.cpio.zst"
done
compare "rootfs of nginx's image" flatten "umoci unpack | cpio | zstd -3" umoci
compare "rootfs of nginx's image" flatten "gzip | bsdtar | zstd -3" bsdtar
ours=$(stat -c %s "$work/ours.cpio.zst") theirs=$(stat -c %s "$work/bsdtar.cpio.zst")
echo "its size: $ours bytes, gzip | bsdtar | zstd -3: $theirs bytes, ratio: $(echo "scale=3; $ours / $theirs" | bc)"

for i in $(seq 8); do
	mkdir -p "$work/eight/$i"
	tar -xzf "$(one_layer "$nginx")" -C "$work/eight/$i"
done
tar -cf "$work/eight.tar" -C "$work/eight" .
rm -rf "$work/eight"
umoci init --layout "$work/eight"
umoci new --image "$work/eight:latest"
umoci raw add-layer --image "$work/eight:latest" "$work/eight.tar"
echo "its peak memory: $(($(peak "$nginx") >> 10)) MiB for $(($(gzip -dc "$(one_layer "$nginx")" | wc -c) >> 20)) MiB of files, $(($(peak "$work/eight") >> 10)) MiB for $(($(stat -c %s "$work/eight.tar") >> 20)) MiB"
