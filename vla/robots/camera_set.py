"""The cameras of an arm: one for each that its embodiment sees with, opened, read and closed together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vla.embodiment import Embodiment
from vla.errors import ConfigError, UnknownNameError
from vla.robots.cameras import CameraDevice, CameraError, fit


class CameraSet:
    """Devices that show what an embodiment sees.

    Args:
        embodiment: whose cameras they are.
        devices: by the embodiment's names; owned from here on.

    Raises:
        UnknownNameError, ConfigError: one too many, or one too few.
    """

    def __init__(self, embodiment: Embodiment, devices: Mapping[str, CameraDevice] | None) -> None:
        self._cameras, self._devices = embodiment.cameras, dict(devices or {})
        names = [camera.name for camera in self._cameras]
        for name in self._devices:
            if name not in names:
                raise UnknownNameError(f"camera of {embodiment.name!r}", name, names)
        if missing := [name for name in names if name not in self._devices]:
            raise ConfigError(f"{embodiment.name!r} sees with {names}: nothing is given for {missing}.")

    def open(self) -> None:
        """Open all; raises :class:`~vla.robots.cameras.CameraError` where one shows nothing."""
        for device in self._devices.values():
            device.open()

    def images(self) -> dict[str, np.ndarray]:
        """The latest pictures in the embodiment's sizes, uint8 [h w 3] by name.

        Raises:
            CameraError: one is lost, stale or frozen.
        """
        seen = {}
        for camera in self._cameras:
            try:
                image = self._devices[camera.name].read().image
            except CameraError as error:
                raise CameraError(f"{error} The arm holds still.") from error
            seen[camera.name] = fit(image, camera.height, camera.width)
        return seen

    def close(self) -> None:
        for device in self._devices.values():
            device.close()
