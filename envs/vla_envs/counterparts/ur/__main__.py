"""A UR5e to try a driver on, without an arm: ``python -m vla_envs.counterparts.ur --host 127.0.0.2``."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from vla_envs.rendering import choose_backend


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a simulated UR5e controller until interrupted.

    Args:
        host: address to bind; a loopback alias for each arm, its ports are the controller's own.
        task: tabletop scene before the arm.
        seed: of that scene.
        image_size: px of the square pictures on the side channel.
        gripper_m_s: fastest speed of the fingers (a real 2F-85: 0.15); 0 for the suite's own, about 0.5.
        control_port: of the side channel: scenes, pictures, faults.
    """

    host: str = "127.0.0.2"
    task: str = "pick"
    seed: int = 0
    image_size: int = 64
    gripper_m_s: float = 0.0
    control_port: int = 30020


def main() -> None:
    flags = tyro.cli(Serve)
    choose_backend()  # before MuJoCo is imported
    from vla_envs.counterparts.ur.serving import UrServer

    try:
        server = UrServer(
            flags.host,
            task=flags.task,
            seed=flags.seed,
            image_size=flags.image_size,
            gripper_m_s=flags.gripper_m_s,
            control_port=flags.control_port,
        )
    except OSError as error:
        raise SystemExit(
            f"{flags.host} cannot be served: {error}. A UR controller's ports are fixed (29999, 30001-30004, "
            "63352): take another loopback address, e.g. --host 127.0.0.3."
        ) from error
    print(f"UR5e at {flags.host} (RTDE 30004, dashboard 29999, script 30003, gripper 63352)", flush=True)
    try:
        server.run()
    except KeyboardInterrupt:
        server.sockets.close()


if __name__ == "__main__":
    main()
