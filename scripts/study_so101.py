"""The shipped policy's tabletop tasks through the SO-101's driver, against direct simulation, scene by scene.

usage: python scripts/study_so101.py [--clock stepped] [--episodes 30] [--out docs/results/so101.json]

Direct: the policy moves the suite's simulated arm. Through the driver: the policy's tool steps become joint
targets by the driver's kinematics, counts by its calibration, and bytes by Feetech's own client; a separate
process answers them as a bus of STS3215 servos whose joints are those of the same simulated scene. Measured
angles come back as counts, pictures are taken in that scene, and success is judged there by the suite's rule.

Stepped: the simulated scene waits while the policy thinks, as it does in direct simulation, so that nothing
but the driver and its protocol differs. Real: it waits for nobody.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from counterpart_study import TASKS

from vla import registry
from vla.control.chunks import ChunkExecutor
from vla.control.loop import run_loop
from vla.control.policies import contract_of
from vla.control.safety import SafetyEnvelope
from vla.eval.intervals import wilson
from vla.interfaces import Policy
from vla.robots import Reading
from vla.robots.servo_arm import ServoArm, ServoArmConfig
from vla.robots.sim import SimRobot
from vla.robots.so101 import so101
from vla.robots.wrapper import RobotWrapper
from vla_envs.counterparts.instruments import PlantCamera, PlantClock, true_calibration
from vla_envs.counterparts.process import ServoCounterpart

Clock = Literal["stepped", "real"]


@dataclass(frozen=True)
class Study:
    """What is run.

    Args:
        tasks: of the tabletop suite.
        episodes: scenes of each; seeds 0 ... episodes - 1.
        clock: see above.
        out: JSON to write; printed only if not given.
    """

    tasks: tuple[str, ...] = TASKS
    episodes: int = 30
    clock: Clock = "stepped"
    out: Path | None = None


class Judged(RobotWrapper):
    """A driver whose readings say whether the scene behind its bus is as asked."""

    def __init__(self, robot: ServoArm, scene: ServoCounterpart, instruction: str) -> None:
        super().__init__(robot)
        self._scene, self._instruction = scene, instruction
        self.asked_again = 0

    def connect(self) -> Reading:
        self._robot.connect()
        return self._judge(self._robot.set_instruction(self._instruction))

    def read(self) -> Reading:
        return self._judge(self._robot.read())

    def command(self, action: np.ndarray) -> Reading:
        return self._judge(self._robot.command(action))

    def set_instruction(self, text: str) -> Reading:
        return self._judge(self._robot.set_instruction(text))

    def _judge(self, reading: Reading) -> Reading:
        self.asked_again = reading.info["repeated"]
        return replace(reading, info={**reading.info, "success": self._scene.outcome()["success"]})


def run_task(policy: Policy, task: str, clock: Clock, episodes: int) -> list[dict[str, Any]]:
    """One row a scene: through the driver and directly."""
    contract = contract_of(policy)
    assert contract is not None
    env = registry.suite("tabletop").make(task, "so101", image_size=contract.image_size)
    executor = ChunkExecutor(policy, contract.execution_horizon)
    rows = []
    with ServoCounterpart("feetech", task=task, clock=clock, image_size=contract.image_size) as scene:
        robot = so101(
            scene.port,
            true_calibration(scene),
            embodiment=env.embodiment,
            cameras={name: PlantCamera(scene, name) for name in ("front", "wrist")},
            config=ServoArmConfig(deadman_s=None if clock == "stepped" else 1.0),
            clock=PlantClock(scene) if clock == "stepped" else None,
        )
        for seed in range(episodes):
            told = scene.reset(seed)
            judged, limit = Judged(robot, scene, told["instruction"]), told["max_steps"]
            began = time.monotonic()
            safety, real = SafetyEnvelope.of(judged), clock == "real"
            through = run_loop(judged, executor, safety, max_steps=limit, realtime=real)
            turn_s = (time.monotonic() - began) / through.steps
            direct = SimRobot(env, seed=seed)
            direct_end = run_loop(direct, executor, SafetyEnvelope.of(direct), max_steps=limit)
            rows.append(
                {
                    "task": task, "clock": clock, "seed": seed, "driver": through.success,
                    "driver_steps": through.steps, "direct": direct_end.success,
                    "direct_steps": direct_end.steps, "turn_s": turn_s, "asked_again": judged.asked_again,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
        robot.close()
    env.close()
    return rows


def rates(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Success through the driver and directly, with intervals, and the difference in points."""
    found: dict[str, Any] = {}
    for way in ("driver", "direct"):
        successes, n = sum(row[way] for row in rows), len(rows)
        low, high = wilson(successes, n)
        found[way] = {"successes": successes, "n": n, "rate": successes / n, "low": low, "high": high}
    found["points"] = 100 * (found["driver"]["rate"] - found["direct"]["rate"])
    found["turn_s_median"] = float(np.median([row["turn_s"] for row in rows]))
    found["asked_again"] = sum(row["asked_again"] for row in rows)
    return found


def main() -> int:
    flags = tyro.cli(Study, description=__doc__)
    policy = registry.policy_factory("learned")()
    rows = [row for task in flags.tasks for row in run_task(policy, task, flags.clock, flags.episodes)]
    found = rates(rows)
    ways = [
        f"{way} {100 * r['rate']:.1f} % [{100 * r['low']:.1f}, {100 * r['high']:.1f}] n={r['n']}"
        for way, r in (("driver", found["driver"]), ("direct", found["direct"]))
    ]
    result = {
        "claim": "the shipped policy does its tabletop tasks through the SO-101 driver and Feetech's client "
        f"against a simulated servo bus, {flags.clock} clock",
        "target": ">= 20 episodes, success within 5 points of direct simulation",
        "measured": f"{', '.join(ways)}, same scenes: {found['points']:+.1f} points",
        "command": f"python scripts/study_so101.py --clock {flags.clock} --tasks {' '.join(flags.tasks)} "
        f"--episodes {flags.episodes}",
        "seeds": [0, flags.episodes - 1],
        **found,
        "rows": rows,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1))
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(found["points"] < -5)


if __name__ == "__main__":
    raise SystemExit(main())
