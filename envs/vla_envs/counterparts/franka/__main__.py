"""An FR3 to try a driver on, without an arm: ``python -m vla_envs.counterparts.franka --host 127.0.0.3``."""

from __future__ import annotations

import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from vla.errors import VlaError
from vla_envs.rendering import choose_backend


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve franka-sim with a tabletop before it until interrupted.

    Args:
        host: address to bind; a loopback alias for each arm, its ports are the controller's own.
        task: tabletop scene before the arm.
        seed: of that scene.
        image_size: px of the square pictures on the side channel.
    """

    host: str = "127.0.0.3"
    task: str = "pick"
    seed: int = 0
    image_size: int = 64


def main() -> None:
    flags = tyro.cli(Serve)
    choose_backend()  # before MuJoCo is imported
    from vla_envs.counterparts.franka.serving import FrankaServer

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory() as folder:
        try:
            server = FrankaServer(
                flags.host,
                task=flags.task,
                seed=flags.seed,
                image_size=flags.image_size,
                folder=Path(folder),
            )
        except (VlaError, OSError) as error:
            raise SystemExit(str(error)) from error
        print(f"FR3 at {flags.host} (control interface 1337, hand 1338)", flush=True)
        try:
            server.run()
        except KeyboardInterrupt:
            pass
        finally:
            server.close()


if __name__ == "__main__":
    main()
