"""The library: counts the chunks of each device in a stream, without reading their data."""

import sys
from collections import Counter

import blkmig_cli

if len(sys.argv) != 2:
    sys.exit("usage: list_chunks.py STREAM")

counts: Counter[str] = Counter()
with blkmig_cli.open(sys.argv[1]) as stream:
    for event in stream.events():
        if isinstance(event, blkmig_cli.events.Block):
            counts[event.device] += 1
for device, number in counts.items():
    print(f"{device}: {number} chunks")
