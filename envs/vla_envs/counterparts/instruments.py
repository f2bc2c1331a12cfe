"""Clock, cameras and calibration of a servo counterpart, as a driver takes them."""

from __future__ import annotations

from vla.robots.calibration import ArmCalibration, ServoCalibration
from vla.robots.cameras import CameraError, Frame, Freshness
from vla_envs.counterparts.process import ServoCounterpart


class PlantClock:
    """Time of a ``stepped`` counterpart: it passes while the driver sleeps, and only then."""

    def __init__(self, counterpart: ServoCounterpart) -> None:
        self._counterpart = counterpart
        self._now_s = float(counterpart.state()["time_s"])

    def now(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s = self._counterpart.advance(seconds)


class PlantCamera:
    """A camera in the counterpart's scene; its pictures are timed by the plant.

    Args:
        counterpart: whose scene.
        name: of the camera.
        frozen_s: see :class:`vla.robots.cameras.Freshness`.
    """

    def __init__(self, counterpart: ServoCounterpart, name: str, *, frozen_s: float = 1.0) -> None:
        self._counterpart, self.name, self._frozen_s = counterpart, name, frozen_s
        self._freshness = Freshness(name, frozen_s=frozen_s)

    def open(self) -> None:
        self._freshness = Freshness(self.name, frozen_s=self._frozen_s)
        self.read()

    def read(self) -> Frame:
        image, time_s = self._counterpart.picture(self.name)
        if image is None:
            raise CameraError(f"Camera {self.name!r} is gone: plug it in and connect() again.")
        self._freshness.put(Frame(image, time_s))
        return self._freshness.get(time_s)

    def close(self) -> None:
        """Nothing is held open."""


def true_calibration(counterpart: ServoCounterpart, *, arm: str = "so101") -> ArmCalibration:
    """What a perfect calibration of the counterpart's arm says (its servos must remember one)."""
    models = {"feetech": lambda _: "sts3215", "dynamixel": lambda i: "xl430-w250" if i <= 2 else "xl330-m288"}
    name_of = models[counterpart.protocol]
    servos = [
        ServoCalibration(
            name=name,
            servo=truth["id"],
            model=name_of(truth["id"]),
            **{
                key: truth[key]
                for key in ("direction", "zero_count", "homing_offset", "min_count", "max_count")
            },
        )
        for name, truth in zip(counterpart.joints, counterpart.state()["servos"], strict=True)
    ]
    return ArmCalibration(arm=arm, joints=tuple(servos[:-1]), gripper=servos[-1])
