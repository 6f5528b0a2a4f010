"""Images of formats that QEMU's block layer knows, opened by children of this process."""
