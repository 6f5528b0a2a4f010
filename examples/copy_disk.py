"""The library: copies a disk from a stream, without extracting it first: STREAM DEVICE IMAGE."""

import shutil
import sys

import blkmig_cli

if len(sys.argv) != 4:
    sys.exit("usage: copy_disk.py STREAM DEVICE IMAGE")

name, device, image = sys.argv[1:]
with blkmig_cli.open(name) as stream, stream.disk(device) as disk, open(image, "xb") as target:
    shutil.copyfileobj(disk, target, 1 << 20)
    print(f"{device}: {disk.size} bytes")
