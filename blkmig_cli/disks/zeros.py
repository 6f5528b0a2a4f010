"""Finding zeros at the speed of memory."""

_ZEROS = bytes(1 << 20)


def is_zero(view: memoryview) -> bool:
    """Return whether every byte of ``view`` is zero; stops at the first that is not."""
    # startswith compares with memcmp for any buffer; == of a memoryview does not.
    step = len(_ZEROS)
    return all(_ZEROS.startswith(view[at : at + step]) for at in range(0, len(view), step))
