"""The shipped policy's tabletop tasks through the SO-101's driver, against direct simulation on the same
scenes.

usage: python scripts/study_so101.py [--task place] [--episodes 60] [--clock stepped] [--out
docs/results/so101.json]

Direct: the policy moves the suite's simulated arm. Through the driver: the policy's tool motions become joint
targets by the driver's kinematics, counts by its calibration, and bytes by Feetech's own client; a separate
process answers them as a bus of STS3215 servos whose joints are those of the same simulated scene. Measured
angles come back as counts, pictures are taken in that scene, and success is judged there by the suite's own
rule.

Stepped: the simulated scene waits while the policy thinks, as it does in direct simulation, so that nothing
but the driver and its protocol differs. Real: it does not wait.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from vla import registry
from vla.control.chunks import ChunkExecutor
from vla.control.loop import run_loop
from vla.control.policies import contract_of
from vla.control.safety import SafetyEnvelope
from vla.eval.intervals import wilson
from vla.robots import Reading
from vla.robots.servo_arm import ServoArm, ServoArmConfig
from vla.robots.sim import SimRobot
from vla.robots.so101 import so101
from vla_envs.counterparts.instruments import PlantCamera, PlantClock, true_calibration
from vla_envs.counterparts.process import ServoCounterpart


@dataclass(frozen=True)
class Study:
    """What is run.

    Args:
        tasks: of the tabletop suite.
        episodes: scenes of each; seeds 0 ... episodes - 1.
        clock: see above.
        out: JSON to write; printed only if not given.
    """

    tasks: tuple[str, ...] = ("place", "push", "stack")
    episodes: int = 40
    clock: Literal["stepped", "real"] = "stepped"
    out: Path | None = None


class Judged:
    """A driver whose readings say whether the scene behind its bus is as asked."""

    def __init__(self, robot: ServoArm, scene: ServoCounterpart, instruction: str) -> None:
        self._robot, self._scene, self._instruction = robot, scene, instruction
        self.embodiment, self.deadman_s = robot.embodiment, robot.deadman_s

    def connect(self) -> Reading:
        self._robot.connect()
        return self._judge(self._robot.set_instruction(self._instruction))

    def read(self) -> Reading:
        return self._judge(self._robot.read())

    def command(self, action: np.ndarray) -> Reading:
        return self._judge(self._robot.command(action))

    def set_instruction(self, text: str) -> Reading:
        return self._judge(self._robot.set_instruction(text))

    def stop(self) -> None:
        self._robot.stop()

    def close(self) -> None:
        self._robot.close()

    def _judge(self, reading: Reading) -> Reading:
        return replace(reading, info={**reading.info, "success": self._scene.outcome()["success"]})


def rate(results: list[bool]) -> dict[str, Any]:
    low, high = wilson(sum(results), len(results))
    return {
        "successes": sum(results),
        "n": len(results),
        "rate": sum(results) / len(results),
        "low": low,
        "high": high,
    }


def main() -> int:
    flags = tyro.cli(Study, description=__doc__)
    policy = registry.policy_factory("learned")()
    contract = contract_of(policy)
    assert contract is not None
    suite = registry.suite("tabletop")
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {"questions": 0, "repeated": 0, "limited": 0}
    turns_s: list[float] = []
    for task in flags.tasks:
        env = suite.make(task, "so101", image_size=contract.image_size)
        with ServoCounterpart(
            "feetech", task=task, clock=flags.clock, image_size=contract.image_size
        ) as scene:
            stepped = flags.clock == "stepped"
            robot = so101(
                scene.port,
                true_calibration(scene),
                embodiment=env.embodiment,
                cameras={name: PlantCamera(scene, name) for name in ("front", "wrist")},
                config=ServoArmConfig(deadman_s=None if stepped else 1.0),
                clock=PlantClock(scene) if stepped else None,
            )
            for seed in range(flags.episodes):
                told = scene.reset(seed)
                envelope = SafetyEnvelope(env.embodiment)
                executor = ChunkExecutor(policy, contract.execution_horizon)
                began = time.monotonic()
                through = run_loop(
                    Judged(robot, scene, told["instruction"]), executor, envelope, max_steps=told["max_steps"]
                )
                turns_s.append((time.monotonic() - began) / through.steps)
                last = robot.connect().info
                facts["repeated"] += last["repeated"]
                direct = run_loop(
                    SimRobot(env, seed=seed),
                    executor,
                    SafetyEnvelope(env.embodiment),
                    max_steps=told["max_steps"],
                )
                rows.append(
                    {
                        "task": task, "seed": seed, "driver": through.success, "driver_steps": through.steps,
                        "direct": direct.success, "direct_steps": direct.steps,
                    }
                )  # fmt: skip
                print(json.dumps(rows[-1]), flush=True)
            robot.close()
        env.close()
    driver, direct = [r["driver"] for r in rows], [r["direct"] for r in rows]
    points = 100 * (np.mean(driver) - np.mean(direct))
    a, b = rate(driver), rate(direct)
    result = {
        "claim": "the shipped policy does its tabletop tasks through the SO-101 driver and Feetech's client "
        "against a simulated servo bus",
        "target": ">= 20 episodes, success within 5 points of direct simulation",
        "measured": f"driver {100 * a['rate']:.1f} % [{100 * a['low']:.1f}, {100 * a['high']:.1f}] "
        "n={a['n']}, direct "
        f"{100 * b['rate']:.1f} % [{100 * b['low']:.1f}, {100 * b['high']:.1f}] n={b['n']}, same scenes: "
        f"{points:+.1f} points",
        "command": f"python scripts/study_so101.py --tasks {' '.join(flags.tasks)} --episodes "
        f"{flags.episodes} --clock {flags.clock}",
        "clock": flags.clock,
        "seeds": [0, flags.episodes - 1],
        "driver": a,
        "direct": b,
        "points": points,
        "turn_s_median": float(np.median(turns_s)),
        "questions_repeated": facts["repeated"],
        "rows": rows,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "rows"}, indent=1))
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(abs(points) > 5)


if __name__ == "__main__":
    raise SystemExit(main())
