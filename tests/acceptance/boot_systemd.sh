#!/bin/bash
# A machine with a systemd of its own, which runs /drive.sh and ends. Nothing of it stays.
#
#     unshare --mount --propagation private bash boot_systemd.sh FOLDER PYTHON DEPENDENCIES CHECKOUT
#
# FOLDER/files is copied over the files of this machine, and what is written goes to memory. The
# others are what the program in /opt/audience-sync needs of us; /root, where it may be, is hidden
# from services. What /drive.sh writes to /out is written to standard output.
set -euo pipefail

if [ "$1" = --inside ]; then
    cd "$2"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs tmp
    mount -t tmpfs tmpfs dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    ln -s /proc/self/fd dev/fd
    ln -s pts/ptmx dev/ptmx
    mkdir dev/shm dev/pts
    mount -t tmpfs tmpfs dev/shm
    mount -t devpts -o newinstance devpts dev/pts
    hostname audience-sync-test
    pivot_root . old
    exec chroot . /bin/sh -c 'umount -l /old; exec "$@"' sh \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test \
        /lib/systemd/systemd --unit=drive.service --log-target=journal
fi

folder=$1 root=$1/root group=audience-sync-test-$$
mkdir "$root" "$folder/written" "$folder/cgroup"
mount -t tmpfs tmpfs "$folder/written"
mkdir "$folder/written/up" "$folder/written/work"
mount -t overlay -o "lowerdir=/,upperdir=$folder/written/up,workdir=$folder/written/work" \
    overlay "$root"
cp -a "$folder/files/." "$root"

# Nothing of this machine's own is started.
rm -rf "$root"/etc/systemd/system/*.wants
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$root/etc/machine-id"
for name in python dependencies checkout; do
    shift
    mkdir -p "$root/opt/$name"
    mount --bind "$1" "$root/opt/$name"
done
mkdir -p "$root/old"

leave() {
    echo $$ > "$folder/cgroup/cgroup.procs"
    for _ in $(seq 100); do  # whoever was killed may take a moment to be gone
        find "$folder/cgroup/$group" -depth -type d -exec rmdir {} + 2> /dev/null && return
        sleep 0.1
    done
}
trap leave EXIT

mount -t cgroup2 cgroup2 "$folder/cgroup"
mkdir "$folder/cgroup/$group"
echo $$ > "$folder/cgroup/$group/cgroup.procs"
timeout --kill-after=5 90 unshare --pid --fork --kill-child --mount --uts --ipc --cgroup \
    bash "${BASH_SOURCE[0]}" --inside "$root" >&2 || true  # 130: it was switched off
cat "$root/out"
