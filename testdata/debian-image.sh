#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# debian-image.sh redis|nginx DIR: makes an OCI image layout at DIR (tag
# "latest") from Debian's own packages, configured as the images that people
# pull.
set -eu

app=$1 out=$2
case $app in
redis)
	package=redis-server
	hook='mkdir "$1/data" && chroot "$1" chown redis:redis /data'
	set -- --config.entrypoint redis-server --config.cmd --protected-mode --config.cmd no \
		--config.user redis --config.workingdir /data --config.exposedports 6379/tcp --config.stopsignal SIGTERM
	;;
nginx)
	package=nginx-light,iputils-ping # ping has a file capability
	hook='test -d "$1"'
	set -- --config.entrypoint nginx --config.cmd -g --config.cmd 'daemon off;' \
		--config.exposedports 80/tcp --config.stopsignal SIGQUIT
	;;
esac

mkdir -p "$(dirname "$out")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH=1700000000

# Without documentation, as slim images are.
mmdebstrap --quiet --variant=minbase --include="$package" \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook="$hook" \
	bookworm "$work/rootfs.tar"

umoci init --layout "$work/image"
umoci new --image "$work/image:latest"
umoci raw add-layer --image "$work/image:latest" "$work/rootfs.tar"
umoci config --image "$work/image:latest" \
	--config.env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
umoci gc --layout "$work/image"

rm -rf "$out" "$out.tmp"
cp -r "$work/image" "$out.tmp"
mv "$out.tmp" "$out"
