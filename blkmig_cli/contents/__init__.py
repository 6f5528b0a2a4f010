"""What a stream adds up to: disks covered, final layout, sizes, bitmaps, byte accounts."""
