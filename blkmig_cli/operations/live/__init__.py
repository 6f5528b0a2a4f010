"""Capturing the disks and bitmaps of a running QEMU through its monitor."""
