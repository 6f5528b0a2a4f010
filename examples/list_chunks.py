"""The library: counts the chunks of each device in a stream, without reading their data."""

import sys
from collections import Counter

import blkmig_cli
from blkmig_cli.wire.events import Block

counts: Counter[str] = Counter()
with blkmig_cli.open(sys.argv[1]) as stream:
    for event in stream.events():
        if isinstance(event, Block):
            counts[event.device] += 1
for device, number in counts.items():
    print(f"{device}: {number} chunks")
