"""The driver, set up for the counterpart's table."""

from __future__ import annotations

from dataclasses import replace

from vla.errors import ConfigError
from vla.robots.named import ArmSettings
from vla.robots.ur import UrRobot
from vla.robots.ur5e import ur5e, ur5e_config, ur5e_embodiment
from vla_envs.counterparts.side_cameras import CounterpartCamera
from vla_envs.tabletop.arms import load_arm
from vla_envs.tabletop.embodiments import tabletop_embodiment


def counterpart_robot(host: str, *, image_size: int = 64, joints: bool = False) -> UrRobot:
    """A driver for the counterpart at an address.

    Its limits of time are longer than an arm's: a counterpart shares its machine with everything else.

    Args:
        image_size: as the counterpart was started with.
        joints: absolute joint angles and no cameras instead of tool deltas and two.
    """
    embodiment = ur5e_embodiment() if joints else tabletop_embodiment(load_arm("ur5e"), image_size)
    devices = {camera.name: CounterpartCamera(camera.name, host) for camera in embodiment.cameras}
    config = replace(ur5e_config(host), deadman_s=1.0, watchdog_hz=2.0, stale_s=0.5)
    return ur5e(host, embodiment=embodiment, cameras=devices, config=config)


def named(settings: ArmSettings) -> UrRobot:
    """``--robot vla_envs.counterparts.ur.robot:named --host ADDRESS``: with its own cameras."""
    settings.need("host")
    if settings.cameras:
        raise ConfigError("The counterpart has cameras of its own: leave --cameras out.")
    arm, config = settings.arm(ur5e_embodiment()), ur5e_config(settings.host)
    devices = {camera.name: CounterpartCamera(camera.name, settings.host) for camera in arm.cameras}
    deadman_s = settings.deadman_s(1.0, arm.control_hz)
    config = replace(config, deadman_s=deadman_s, watchdog_hz=2.0, stale_s=0.5)
    return ur5e(settings.host, embodiment=arm, cameras=devices, config=config)
