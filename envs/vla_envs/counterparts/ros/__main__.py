"""A UR5e under ros2_control to try a driver on: ``python -m vla_envs.counterparts.ros --host 127.0.0.2``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from vla_envs.rendering import choose_backend


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a simulated arm under ros2_control until interrupted.

    Args:
        host: address to bind; a loopback alias for each arm.
        transport: rosbridge at port 9090, or a ROS node (rclpy).
        task: tabletop scene before the arm.
        seed: of that scene.
        image_size: px of the square pictures on the side channel.
    """

    host: str = "127.0.0.2"
    transport: Literal["rosbridge", "rclpy"] = "rosbridge"
    task: str = "pick"
    seed: int = 0
    image_size: int = 64


def main() -> None:
    flags = tyro.cli(Serve)
    choose_backend()  # before MuJoCo is imported
    from vla_envs.counterparts.ros.serving import RosServer

    try:
        server = RosServer(
            flags.host,
            transport=flags.transport,
            task=flags.task,
            seed=flags.seed,
            image_size=flags.image_size,
        )
    except OSError as error:
        raise SystemExit(f"{flags.host} cannot be served: {error}. Take another loopback address.") from error
    print(f"UR5e under ros2_control at {flags.host} ({flags.transport})", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        server.close()


if __name__ == "__main__":
    main()
