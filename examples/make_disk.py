"""Makes a small sparse disk image and a file with its dirty bitmaps: make_disk.py IMAGE"""

import sys

from blkmig_cli import BitmapFile, DirtyBitmap, write_bitmaps

if len(sys.argv) != 2:
    sys.exit("usage: make_disk.py IMAGE")

MIB = 1 << 20
SIZE = 64 * MIB + 19 * 512

path = sys.argv[1]
daily = DirtyBitmap("daily", 64 << 10, persistent=True)
fine = DirtyBitmap("fine", 512)
with open(path, "wb") as image:
    image.truncate(SIZE)
    for start, length in ((0, 4096), (5 * MIB - 700, 2 * MIB), (SIZE - 3000, 3000)):
        image.seek(start)
        image.write((b"blkmig demo %d " % start * length)[:length])
        daily.set_range(start, length)
        fine.set_range(start, length)
write_bitmaps(f"{path}.bitmaps.json", BitmapFile(SIZE, {"daily": daily, "fine": fine}))
print(f"{path}: {SIZE} bytes; bitmaps daily and fine")
