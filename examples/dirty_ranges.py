"""The library: prints the dirty ranges of a stream's bitmaps, which a backup would have to read."""

import sys

import blkmig_cli

if len(sys.argv) != 2:
    sys.exit("usage: dirty_ranges.py STREAM")

with blkmig_cli.open(sys.argv[1]) as stream:
    for device in stream.devices:
        for bitmap in stream.bitmaps(device).values():
            for start, length in bitmap.ranges():
                print(f"{device}/{bitmap.name}: {length} bytes from {start}")
