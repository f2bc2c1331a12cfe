"""Pictures that are drawn when somebody looks at them.

Drawing is most of what a simulated step costs, and a policy that runs several actions of each chunk looks at
one picture in several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from vla.errors import EnvError


class UndrawnPictures(Mapping[str, np.ndarray]):
    """``Observation.images`` of an env that stands still until somebody looks; each is drawn once.

    Args:
        cameras: their names.
        draw: camera name -> uint8 [h w 3] of the present moment.
        is_present: whether the env still stands where it was observed.

    Raises:
        EnvError: of looking at a camera for the first time when the env has gone on: what would be drawn is
            not what was there.
    """

    def __init__(
        self, cameras: Sequence[str], draw: Callable[[str], np.ndarray], is_present: Callable[[], bool]
    ) -> None:
        self._cameras, self._draw, self._is_present = tuple(cameras), draw, is_present
        self._drawn: dict[str, np.ndarray] = {}

    def __getitem__(self, camera: str) -> np.ndarray:
        if camera not in self._cameras:
            raise KeyError(camera)
        if camera not in self._drawn:
            if not self._is_present():
                raise EnvError(
                    f"The picture of camera {camera!r} was not drawn before its env went on. Who looks back "
                    "must have every picture drawn: set the env's draws_on_demand to False before its reset."
                )
            self._drawn[camera] = self._draw(camera)
        return self._drawn[camera]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cameras)

    def __len__(self) -> int:
        return len(self._cameras)
