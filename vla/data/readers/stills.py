"""Pictures that are stored one by one: compressed (JPEG, PNG) or as arrays; as ``Frames``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from vla.errors import DatasetError


def decode_still(data: np.ndarray | bytes | memoryview, origin: str) -> np.ndarray:
    """A JPEG or PNG file's bytes (zeros may follow) -> uint8 [h w 3], RGB.

    Raises:
        DatasetError: bytes that are no picture; says ``origin``.
    """
    buffer = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
    picture = cv2.imdecode(buffer, cv2.IMREAD_COLOR) if buffer.size else None
    if picture is None:
        raise DatasetError(
            f"{origin}: {buffer.size} bytes that are neither JPEG nor PNG. Damaged: fetch it again."
        )
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


@dataclass(frozen=True, kw_only=True, eq=False)
class StillFrames:
    """Random access to pictures that ``read_still`` gives one at a time.

    Args:
        origin: which episode and camera, for errors.
        shape: height and width, pixels.
        length: steps.
        read_still: step -> bytes of a JPEG or PNG file, or uint8 [h w 3].
    """

    origin: str
    shape: tuple[int, int]
    length: int
    read_still: Callable[[int], bytes | memoryview | np.ndarray]

    def __len__(self) -> int:
        return self.length

    def read(self, step: int, out: np.ndarray) -> None:
        if not 0 <= step < self.length:
            raise DatasetError(f"{self.origin}: step {step} of {self.length}.")
        still = self.read_still(step)
        if not isinstance(still, np.ndarray) or still.ndim == 1:
            still = decode_still(still, f"{self.origin}, step {step}")
        if still.shape != out.shape:
            raise DatasetError(
                f"{self.origin}, step {step}: the picture is {still.shape[0]}x{still.shape[1]}, expected "
                f"{self.shape[0]}x{self.shape[1]}."
            )
        out[:] = still
