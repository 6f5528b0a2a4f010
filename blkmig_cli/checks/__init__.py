"""Checking a stream: the catalogue of findings, the checker, its report, manifests, QEMU's defects."""
