"""The driver, set up for the counterpart's table."""

from __future__ import annotations

from vla.robots.fr3 import BASE_POSITION, fr3, fr3_embodiment
from vla.robots.franka import FrankaConfig, FrankaRobot
from vla_envs.counterparts.side_cameras import CounterpartCamera
from vla_envs.tabletop.arms import load_arm, panda
from vla_envs.tabletop.embodiments import tabletop_embodiment

_LINK7_TO_FLANGE_M = 0.107  # franka-sim 1.1.7 reports link 7's frame where an arm reports its flange's


def counterpart_robot(host: str, *, image_size: int = 64, joints: bool = False) -> FrankaRobot:
    """A driver for the counterpart at an address at 0.7 of its limits: nobody is near it.

    Its limits of time are longer than an arm's: a counterpart shares its machine with everything else.

    Args:
        image_size: as the counterpart was started with.
        joints: absolute joint angles and no cameras instead of tool deltas and two.
    """
    config = FrankaConfig(
        host=host,
        base_position=BASE_POSITION,
        flange_to_tcp=panda.TCP_HEIGHT + _LINK7_TO_FLANGE_M,
        speed=0.7,
        collision=(100.0, 100.0),
        deadman_s=1.0,
        stale_s=0.5,
        realtime="ignore",
    )
    embodiment = fr3_embodiment() if joints else tabletop_embodiment(load_arm("panda"), image_size)
    devices = {camera.name: CounterpartCamera(camera.name, host) for camera in embodiment.cameras}
    return fr3(host, embodiment=embodiment, cameras=devices, config=config)
