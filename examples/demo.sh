#!/bin/sh
# The main commands with a disk made here, and with streams captured from real QEMUs.
# Needs blkmig on PATH, and a python3 that imports its library: `make demo` has both.
# Fails unless everything is identical in the end.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
captures=$(cd "$here/../tests/captures" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cd "$work"
if ! python3 -c 'import blkmig_cli' 2>/dev/null; then
    echo "demo.sh: python3 does not find blkmig's library; run it by: make demo" >&2
    exit 1
fi

say() { printf '\n# %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

say "A disk of 64 MiB and 9.5 KiB with two dirty bitmaps, made here."
run python3 "$here/make_disk.py" disk.img

say "Send it with its bitmaps, as a stream that a real QEMU loads."
run blkmig send disk.img --bitmaps --to stream.bin
run blkmig dump stream.bin --limit 12
run blkmig validate stream.bin

say "Replay it onto a new image, and compare."
run blkmig replay stream.bin --image copy.img --create
run cmp disk.img copy.img
run cmp disk.img.bitmaps.json copy.img.bitmaps.json

say "Write the stream as a spec, and build it again."
echo '$ blkmig dump stream.bin --spec > stream.spec'
blkmig dump stream.bin --spec > stream.spec
run blkmig build stream.spec --to rebuilt.bin
run cmp stream.bin rebuilt.bin

say "A stream captured from QEMU 7.2: two disks, five bitmaps, 57 MB, RAM and devices."
capture=$captures/bitmaps-7.2-with-blocks
gunzip -c "$capture.bin.gz" > capture.bin
run blkmig dump capture.bin --limit 12
run blkmig validate capture.bin

say "Replay it onto two new images; compare them with the stream, and with the known source."
run blkmig replay capture.bin --image drive0=a.img --image drive1=b.img --create
run blkmig validate capture.bin --image drive0=a.img --image drive1=b.img
run python3 "$here/compare_with_truth.py" "$capture.json" drive0=a.img drive1=b.img

if command -v qemu-img >/dev/null && command -v qemu-storage-daemon >/dev/null; then
    say "The same onto qcow2 images, which hold their bitmaps; then a stream of such an image."
    run blkmig replay capture.bin --image '{device}.qcow2' --create -q
    run qemu-img compare -f raw -F qcow2 a.img drive0.qcow2
    run blkmig compare capture.bin drive0=drive0.qcow2
    run blkmig compare capture.bin drive1=drive1.qcow2
    run blkmig send drive0.qcow2 drive1.qcow2 --bitmaps --to qcow2.bin
    run blkmig validate qcow2.bin
else
    say "Left out: qcow2 images (they need qemu-img and qemu-storage-daemon, package qemu-utils)."
fi

say "A migration that QEMU 7.2 called completed. Two thirds of the disk are missing:"
status=0
run blkmig validate "$captures/classic-incomplete.bin.gz" || status=$?
if [ "$status" != 1 ]; then
    echo "the incomplete stream was not detected (exit status $status)" >&2
    exit 1
fi
echo "(exit status 1)"

say "Disks and bitmaps are identical; the incomplete stream was detected."
