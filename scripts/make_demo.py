"""Make the moving picture of the README: every arm follows a sentence, side by side.

usage: python scripts/make_demo.py [--policy default] [--out docs/media/demo.webp]
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import cv2
import numpy as np
import tyro

from vla import registry
from vla.cli.flags import policy_spec
from vla.control.chunks import ChunkExecutor
from vla.control.loop import Tick, run_loop
from vla.control.policies import PolicySpec, contract_of
from vla.control.safety import SafetyEnvelope
from vla.report.video import caption
from vla.robots import Reading
from vla.robots.sim import sim_robot

#: What each arm is told, one after the other.
SENTENCES = {
    "panda": ("put the red cube in the blue bowl", "press the green button"),
    "ur5e": ("stack the red cube on the green cube", "knock over the yellow bottle"),
    "xarm7": ("open the red drawer", "push the blue cube to the yellow zone"),
    "so101": ("pick up the yellow cube", "put the green cube in the red bowl"),
}


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Make the moving picture of the README.

    Args:
        policy: default (shipped), a directory that vla train wrote, or expert.
        out: animated WebP to write.
        size: pixels of each arm's picture.
        every: control steps a frame.
        max_steps: of one sentence.
    """

    policy: str = "default"
    out: Path = Path("docs/media/demo.webp")
    size: int = 240
    every: int = 1
    max_steps: int = 90


@dataclass
class Camera:
    """Hook that draws the scene and what was said."""

    env: Any
    size: int
    every: int
    frames: list[np.ndarray] = field(default_factory=list)

    def started(self, reading: Reading) -> None:
        self._draw(reading)

    def ticked(self, tick: Tick) -> None:
        if (tick.index + 1) % self.every == 0 or tick.reading.info["success"]:
            self._draw(tick.reading)

    def _draw(self, reading: Reading) -> None:
        self.frames.append(np.vstack([self.env.render_frame(self.size), caption(reading, self.size)]))


def film(flags: Demo, arm: str, sentence: str) -> list[np.ndarray]:
    """The frames of one sentence; an arm that does not make it raises RuntimeError."""
    suite, spec = registry.suite("tabletop"), PolicySpec.parse(policy_spec(flags.policy))
    policy = None if spec.is_bound else spec.build()
    contract = None if policy is None else contract_of(policy)
    make = {} if contract is None else {"image_size": contract.image_size}
    robot = sim_robot(suite, arm, sentence, seed=0, **make)
    with contextlib.closing(robot):
        camera = Camera(robot.env, flags.size, flags.every)
        driver = ChunkExecutor(
            policy or spec.build(suite=suite, env=robot.env), contract.execution_horizon if contract else 1
        )
        result = run_loop(
            robot, driver, SafetyEnvelope(robot.embodiment), max_steps=flags.max_steps, hooks=(camera,)
        )
    if not result.success:
        raise RuntimeError(f"{arm} did not {sentence!r} in {result.steps} steps: choose another sentence.")
    return [*camera.frames, *[camera.frames[-1]] * (6 // flags.every)]


def tiled(films: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Two by two, each film standing still at its end until the longest is over."""
    length = max(map(len, films))
    held = [[*frames, *[frames[-1]] * (length - len(frames))] for frames in films]
    return [np.vstack([np.hstack([a, b]), np.hstack([c, d])]) for a, b, c, d in zip(*held, strict=True)]


def main() -> int:
    flags = tyro.cli(Demo, description=__doc__)
    films = [list(itertools.chain(*(film(flags, arm, s) for s in said))) for arm, said in SENTENCES.items()]
    frames = tiled(films)
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames]
    animation.durations = np.full(len(frames), 100 * flags.every, np.int32)
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwriteanimation(str(flags.out), animation, [cv2.IMWRITE_WEBP_QUALITY, 60])
    print(f"{flags.out}: {len(frames)} frames, {flags.out.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
