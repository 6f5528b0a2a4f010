#!/bin/sh
# A nightly incremental backup of a qcow2 image that no guest uses meanwhile.
# Usage: nightly.sh IMAGE FOLDER [KEEP]   (needs blkmig on PATH, and qemu-utils)
#
# FOLDER gets 0001.bin, a full stream, and then an increment each night.  A bitmap in the image, night-N,
# records what changes after N.bin.  Of more than KEEP streams (default 7), the oldest ones are folded into
# a new full stream.  In the end everything is restored from FOLDER and compared with the image.
set -eu
[ $# -ge 2 ] || { echo "usage: nightly.sh IMAGE FOLDER [KEEP]" >&2; exit 2; }
image=$1 folder=$2 keep=${3:-7}
mkdir -p "$folder"
streams() { find "$folder" -name '[0-9][0-9][0-9][0-9].bin' | sort; }

last=$(streams | tail -n 1)
if [ -z "$last" ]; then
    blkmig send "$image" --mark night-0001 --to "$folder/0001.bin"
else
    old=$(basename "$last" .bin)
    new=$(printf '%04d' "$(($(echo "$old" | sed 's/^0*//') + 1))")
    # The bitmap of the last stream is kept: if this one is lost, it can be made again.
    before=$(printf 'night-%04d' "$(($(echo "$old" | sed 's/^0*//') - 1))")
    drop=
    if qemu-img info --output=json "$image" | grep -q "\"$before\""; then
        drop="--drop $before"
    fi
    # shellcheck disable=SC2086
    blkmig send "$image" --since "night-$old" --mark "night-$new" --base "$last" $drop \
        --to "$folder/$new.bin"
fi

# Prune: the two oldest streams become one full stream, under the name of the second.
while [ "$(streams | wc -l)" -gt "$keep" ]; do
    first=$(streams | head -n 1)
    second=$(streams | sed -n 2p)
    blkmig fold "$first" "$second" --to "$folder/folded.new"
    mv "$folder/folded.new" "$second"
    rm "$first"
done

# Restore, and compare.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
create=--create
for stream in $(streams); do
    blkmig replay "$stream" --image "$work/restored.img" $create -q
    create=
done
qemu-img compare -f raw -F qcow2 "$work/restored.img" "$image"
