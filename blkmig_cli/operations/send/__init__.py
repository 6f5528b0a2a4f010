"""Writing a stream of disk images and bitmaps."""
