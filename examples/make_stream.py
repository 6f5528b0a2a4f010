"""The library: writes a disk image with a bitmap of its first MiB as a stream: IMAGE STREAM."""

import sys

import blkmig_cli

if len(sys.argv) != 3:
    sys.exit("usage: make_stream.py IMAGE STREAM")

path, target = sys.argv[1:]
bitmap = blkmig_cli.DirtyBitmap("daily", granularity=65536)
bitmap.set_range(0, 1 << 20)
with blkmig_cli.open_image(path) as image:
    events = blkmig_cli.events_of([blkmig_cli.Disk("drive0", image, [bitmap])])
    print(f"{blkmig_cli.write(events, target)} bytes")
