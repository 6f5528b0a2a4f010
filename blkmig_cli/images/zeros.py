"""Finding zeros at the speed of memory."""

import numpy as np


def is_zero(view: memoryview) -> bool:
    """Is every byte of ``view`` zero?  Looks at the first bytes before it looks at all."""
    if any(view[:16]):
        return False
    return not np.frombuffer(view, np.uint8).any() if len(view) else True
