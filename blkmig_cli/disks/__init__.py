"""Disk images, their locks, and dirty bitmaps with the files in which they are stored."""
