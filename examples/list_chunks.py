"""The library: counts the chunks of each device in a stream, without reading their data."""

import sys
from collections import Counter

from blkmig_cli.decode import Decoder
from blkmig_cli.events import Block
from blkmig_cli.transport import open_stream

counts: Counter[str] = Counter()
with open_stream(sys.argv[1]) as stream:
    for event in Decoder(stream.input):
        if isinstance(event, Block):
            counts[event.device] += 1
for device, number in counts.items():
    print(f"{device}: {number} chunks")
