"""Arms by name: what a person types after ``--robot``, ``--host``, ``--cameras`` ... becomes a driver.

A kind of arm is an entry point of the group ``vla.robots`` (or ``module:function``): a function of
:class:`ArmSettings` that returns a robot, not connected yet. It runs in a process of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from vla import registry
from vla.embodiment import Camera, CameraRole, Embodiment
from vla.errors import ConfigError
from vla.robots import Robot
from vla.robots.cameras import CameraDevice, OpenCVCamera
from vla.robots.process import ProcessRobot
from vla.robots.slow import SlowRobot, check_speed, slowed

#: Periods at its real rate that an arm goes on without a command.
DEADMAN_PERIODS = 3
#: Pictures of an arm that no policy prescribes any for, px.
OWN_HEIGHT, OWN_WIDTH = 240, 320


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """What a person says of an arm.

    Args:
        host: address of its controller.
        port: serial port.
        calibration: file that ``vla robot calibrate`` wrote.
        arm_file: what describes the arm (``ros2``), or was recorded of one (``replay``).
        cameras: the embodiment's camera -> number, path or URL for OpenCV.
        speed: share of the policy's own speed.
        embodiment: what the policy knows it as; None: the driver's own.
    """

    host: str = ""
    port: str = ""
    calibration: str = ""
    arm_file: str = ""
    cameras: Mapping[str, int | str] = field(default_factory=dict)
    speed: float = 1.0
    embodiment: Embodiment | None = None

    def __post_init__(self) -> None:
        check_speed(self.speed)

    def need(self, *names: str) -> None:
        """Raise :class:`ConfigError` where one of these was not said, or something else was."""
        said = {
            "host": self.host,
            "port": self.port,
            "calibration": self.calibration,
            "arm_file": self.arm_file,
        }
        if missing := [name for name in names if not said[name]]:
            raise ConfigError(f"This arm is found by {_flags(names)}: {_flags(missing)} missing.")
        if odd := [name for name, value in said.items() if value and name not in names]:
            raise ConfigError(f"This arm is found by {_flags(names)}: it has no use for {_flags(odd)}.")

    def arm(self, own: Embodiment) -> Embodiment:
        """The embodiment to drive, at the rate of the slow motion; ``own`` where no policy prescribes one."""
        arm = self.embodiment
        if arm is None:
            seen = tuple(
                Camera(name=name, role=_role(name), height=OWN_HEIGHT, width=OWN_WIDTH)
                for name in self.cameras
            )
            arm = replace(own, cameras=seen)
        return slowed(arm, self.speed)

    def deadman_s(self, own_s: float, control_hz: float) -> float:
        """The driver's own, or a few real control periods where that is longer."""
        return max(own_s, DEADMAN_PERIODS / control_hz)

    def devices(self) -> dict[str, CameraDevice]:
        """The cameras, not open yet."""
        return {name: OpenCVCamera(name, source) for name, source in self.cameras.items()}

    def to_json(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_json` takes them back."""
        arm = None if self.embodiment is None else self.embodiment.to_json()
        return {**self.__dict__, "cameras": dict(self.cameras), "embodiment": arm}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArmSettings:
        """From :meth:`to_json`, strictly."""
        arm = data.get("embodiment")
        return cls(**{**data, "embodiment": None if arm is None else Embodiment.from_json(arm)})


def open_arm(kind: str, settings: ArmSettings) -> Robot:
    """The arm in a process of its own, in slow motion where its speed is less than one; not connected yet.

    Args:
        kind: registered name, or ``module:function``.
        settings: see :class:`ArmSettings`.

    Raises:
        UnknownNameError: no such kind of arm.
        ConfigError, RobotError: what was said does not make an arm, and why.
    """
    wanted = {"kind": kind, "settings": settings.to_json()}
    robot = ProcessRobot("vla.robots.named:build", wanted)
    if settings.speed == 1:
        return robot
    hz = robot.embodiment.control_hz / settings.speed
    shown = settings.embodiment or replace(robot.embodiment, control_hz=round(hz, 9))
    return SlowRobot(robot, shown, settings.speed)


def build(kind: str, settings: Mapping[str, Any]) -> Robot:
    """In the driver's process: the robot that its factory makes."""
    return registry.robot_factory(kind)(ArmSettings.from_json(settings))


def camera_sources(texts: tuple[str, ...]) -> dict[str, int | str]:
    """``("front=0", "wrist=/dev/video2")`` -> what OpenCV opens, by camera.

    Raises:
        ConfigError: one that is not NAME=SOURCE, or is said twice.
    """
    found: dict[str, int | str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (name and equals and source) or name in found:
            raise ConfigError(f"Camera {text!r}: expected NAME=SOURCE once a camera, e.g. front=0 wrist=2.")
        found[name] = int(source) if source.isdecimal() else source
    return found


def embodiment_of(kind: str, known: Mapping[str, Embodiment], chosen: str) -> Embodiment:
    """The arm of a policy that this kind of robot is driven as.

    Args:
        kind: of robot.
        known: the policy's.
        chosen: one of them by name; empty: the one of the kind's name, or the only one.

    Raises:
        ConfigError: none, or several, and none was chosen.
    """
    if name := chosen or (kind if kind in known else ""):
        if name not in known:
            raise ConfigError(f"The policy does not know an arm {name!r}; it knows {', '.join(known)}.")
        return known[name]
    if len(known) == 1:
        return next(iter(known.values()))
    raise ConfigError(
        f"The policy knows no arm {kind!r}; it knows {', '.join(known)}. If yours is one of them, say which "
        "by --embodiment."
    )


def _role(name: str) -> CameraRole:
    if name not in get_args(CameraRole):
        raise ConfigError(f"Camera {name!r}: expected one of {', '.join(get_args(CameraRole))}.")
    return name  # type: ignore[return-value]  # just checked


def _flags(names: tuple[str, ...] | list[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)
