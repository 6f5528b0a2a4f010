"""Disk images, their locks, and dirty bitmaps with the files that keep them."""
