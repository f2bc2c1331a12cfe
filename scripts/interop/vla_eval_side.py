"""vla-eval's own runner on the tabletop suite; runs in its own virtual environment, started by interop.py.

usage: python vla_eval_side.py URL MODE TASK ARM SEED [SEED ...]

The last line printed is JSON: per seed success, steps and the digest of the executed actions.
"""

import hashlib
import json
import sys
from typing import Any, ClassVar

import numpy as np
from vla_eval import api
from vla_eval.benchmarks.base import StepBenchmark, StepResult

from vla import registry
from vla.control.safety import SafetyEnvelope
from vla.robots.sim import SimRobot


class Tabletop(StepBenchmark):
    """One episode a seed; what is executed goes through the same safety envelope as everywhere."""

    results: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, task: str, arm: str, seeds: list[int]) -> None:
        super().__init__()
        self._env = registry.suite("tabletop").make(task, arm, image_size=64)
        self._seeds, self._name = seeds, task
        self._reading = None

    def get_tasks(self):
        return [{"name": f"{self._name}-{seed}", "seed": seed} for seed in self._seeds]

    def get_metadata(self):
        return {"max_steps": self._env.max_steps}

    def get_hold_action(self, last_action):
        if self._reading is None:  # asked before the first episode whether there is one at all
            return {"actions": np.zeros(self._env.embodiment.action_dim, np.float32)}
        state = self._reading.observation.state
        return {"actions": np.asarray(self._envelope.hold(state), np.float32)}

    def reset(self, task):
        self._robot = SimRobot(self._env, seed=task["seed"], options={"variant": "base", "wording": "train"})
        self._envelope = SafetyEnvelope.of(self._robot)
        self._reading, self._digest, self._steps = self._robot.connect(), hashlib.sha256(), 0
        return self._reading

    def make_obs(self, raw_obs, task):
        seen = raw_obs.observation
        return {
            "images": dict(seen.images),
            "task_description": seen.instruction,
            "state": self._env.embodiment.pack_state(seen.state),
        }

    def step(self, action):
        action = np.asarray(action["actions"], np.float32)
        safe = self._envelope(action, self._reading.observation.state)
        self._digest.update(safe.action.tobytes())
        self._steps += 1
        self._reading = self._robot.command(safe.action)
        done = self._reading.done or self._reading.info["success"]
        return StepResult(obs=self._reading, reward=0.0, done=done, info={})

    def get_step_result(self, step_result):
        success = bool(self._reading.info["success"])
        digest = self._digest.hexdigest()[:16]
        self.results.append({"success": success, "steps": self._steps, "actions": digest})
        return {"success": success}


if __name__ == "__main__":
    url, mode, task, arm, *seeds = sys.argv[1:]
    sys.modules["vla_eval_side"] = sys.modules["__main__"]
    params = {"task": task, "arm": arm, "seeds": [int(seed) for seed in seeds]}
    entry = {"benchmark": "vla_eval_side:Tabletop", "mode": mode, "params": params, "max_steps": 300}
    if mode == "live":
        entry["hz"] = 10.0
    ran = api.run({"server": {"url": url}, "benchmarks": [entry]}, no_save=True, docker=False)
    episodes = [episode for result in ran for found in result["tasks"] for episode in found["episodes"]]
    errors = [episode for episode in episodes if "failure_reason" in episode]
    print(json.dumps({"results": Tabletop.results, "errors": len(errors), "ran": len(ran)}))
