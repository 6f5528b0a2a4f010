"""Compares replayed images and bitmaps with the known data of a capture: TRUTH.json DEVICE=IMAGE..."""

import hashlib
import json
import sys
from pathlib import Path

if len(sys.argv) < 3:
    sys.exit("usage: compare_with_truth.py TRUTH.json DEVICE=IMAGE...")

# Names of a bitmap's properties in TRUTH.json and in IMAGE.bitmaps.json.
KEYS = {
    "granularity": "granularity",
    "count": "count",
    "dirty": "dirty",
    "enabled": "recording",
    "persistent": "persistent",
}

truth = json.loads(Path(sys.argv[1]).read_text())
images = dict(argument.split("=", 1) for argument in sys.argv[2:])
if set(images) != set(truth["devices"]):
    sys.exit(f"specify an image for each of {', '.join(truth['devices'])}")
for device, image in images.items():
    found = hashlib.sha256(Path(image).read_bytes()).hexdigest()
    if found != truth["devices"][device]["sha256"]:
        sys.exit(f"{device}: the disk differs")
    print(f"{device}: SHA-256 of the disk is that of the source")
    expected = {bitmap["name"]: bitmap for bitmap in truth["bitmaps"] if bitmap["device"] == device}
    path = Path(f"{image}.bitmaps.json")
    bitmaps = json.loads(path.read_text())["bitmaps"] if path.exists() else []
    by_name = {bitmap["name"]: bitmap for bitmap in bitmaps}
    if set(by_name) != set(expected):
        sys.exit(f"{device}: other bitmaps than the source has")
    for name, bitmap in expected.items():
        if any(by_name[name][key] != bitmap[known] for known, key in KEYS.items()):
            sys.exit(f"{device}: bitmap {name} differs")
        print(f"{device}: bitmap {name} has the source's dirty ranges and flags")
