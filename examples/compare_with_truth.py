"""Compares replayed images and bitmaps with a capture's truth: TRUTH.json DEVICE=IMAGE..."""

import hashlib
import json
import sys
from pathlib import Path

truth = json.loads(Path(sys.argv[1]).read_text())
for argument in sys.argv[2:]:
    device, image = argument.split("=", 1)
    found = hashlib.sha256(Path(image).read_bytes()).hexdigest()
    if found != truth["devices"][device]["sha256"]:
        sys.exit(f"{device}: the disk differs")
    print(f"{device}: SHA-256 of the disk is that of the source")
    bitmaps = json.loads(Path(f"{image}.bitmaps.json").read_text())["bitmaps"]
    by_name = {bitmap["name"]: bitmap for bitmap in bitmaps}
    for bitmap in truth["bitmaps"]:
        if bitmap["device"] == device:
            shown = by_name[bitmap["name"]]
            if any(shown[key] != bitmap[key] for key in ("granularity", "count", "dirty")):
                sys.exit(f"{device}: bitmap {bitmap['name']} differs")
            print(f"{device}: bitmap {bitmap['name']} has the source's dirty ranges")
