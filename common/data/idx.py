"""The IDX format of MNIST: a header of big-endian numbers, then bytes.

0, 0, 8 (unsigned bytes), dimensions; each dimension's size in four bytes; the elements, the last index fastest
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data.packed import DAMAGE, whole
from common.errors import UserError

BYTES = 8
"""Code of the type unsigned byte."""
AGAIN = "copy or download it again"


def array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """What an IDX file of unsigned bytes holds, packed or not.

    Raises:
        UserError: it is damaged, cut short, longer than its header says, or of another type or number of dimensions.
    """
    try:
        raw = whole(path)
    except DAMAGE as error:
        raise UserError(f"{path}: damaged archive ({error}); {AGAIN}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    head = 4 + 4 * dimensions
    if raw[:4] != bytes([0, 0, BYTES, dimensions]):
        raise UserError(
            f"{path}: begins with {list(raw[:4])}, and an IDX file of bytes in {dimensions} dimensions with "
            f"{[0, 0, BYTES, dimensions]}; give the original file"
        )
    if len(raw) < head:
        raise UserError(f"{path}: cut short within its header; {AGAIN}")
    sizes = [int.from_bytes(raw[4 + 4 * place : 8 + 4 * place], "big") for place in range(dimensions)]
    wanted = head + int(np.prod(sizes, dtype=object))
    if len(raw) != wanted:
        kind = "cut short" if len(raw) < wanted else "longer than its header says"
        raise UserError(f"{path}: {kind}: {len(raw)} bytes, and {wanted} with the sizes {sizes}; {AGAIN}")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(sizes).copy()
