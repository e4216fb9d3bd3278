#!/bin/bash
# As a container runtime starts a program: the first process of its namespace, another user, no
# capabilities and no way to get any.
#
#     unshare --pid --fork --mount --mount-proc bash container.sh PYTHON USER GROUP COMMAND…
#
# PYTHON is the folder of the interpreter, which other users may not be able to enter (/root).
set -euo pipefail

python=$1 user=$2 group=$3
shift 3

top=/$(echo "$python" | cut -d / -f 2)
if [ "$(($(stat -c %a "$top") % 2))" = 0 ]; then
    held=$(mktemp -d)
    mount --bind "$python" "$held"
    mount -t tmpfs -o mode=0755 tmpfs "$top"
    mkdir -p "$python"
    mount --bind "$held" "$python"
    umount "$held"
    rmdir "$held"
fi

exec setpriv --reuid="$user" --regid="$group" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
