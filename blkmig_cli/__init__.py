"""blkmig: QEMU block-migration streams, decoded, checked and applied to disk images."""

__version__ = "0.1.0"
