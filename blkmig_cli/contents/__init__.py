"""The combined content of a stream: disks covered, final layout, sizes, bitmaps, byte accounts."""
