"""lerobot's own RobotClient on the tabletop suite; runs in lerobot's Python, started by scripts/interop.py.

usage: lerobot's python lerobot_side.py ADDRESS TASK ARM PER_CHUNK SEED [SEED ...]

The scene moves on with each action alone, so that the client's clock does not matter. The last line printed
is JSON: per seed success, steps and the digest of the executed actions.
"""

import hashlib
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lerobot.async_inference.configs import RobotClientConfig
from lerobot.async_inference.robot_client import RobotClient
from lerobot.robots import Robot, RobotConfig

ROOT = Path(__file__).parents[2]
sys.path[1:1] = [str(ROOT), str(ROOT / "envs")]

from vla.control.safety import SafetyEnvelope
from vla.robots.sim import SimRobot
from vla_envs.tabletop.suite import TabletopSuite

FPS = 30


@RobotConfig.register_subclass("tabletop")
@dataclass
class TabletopArmConfig(RobotConfig):
    """A scene of the suite."""

    task: str = "place"
    arm: str = "panda"
    seed: int = 0


class TabletopArm(Robot):
    """A simulated arm as lerobot knows one: a number an entry of its state and action."""

    config_class = TabletopArmConfig
    name = "tabletop"

    def __init__(self, config: TabletopArmConfig) -> None:
        super().__init__(config)
        self._env = TabletopSuite().make(config.task, config.arm, image_size=64)
        self._robot = SimRobot(self._env, seed=config.seed, options={"variant": "base", "wording": "train"})
        self._envelope = SafetyEnvelope.of(self._robot)
        self._reading = None
        self._digest, self.steps = hashlib.sha256(), 0
        self.over = threading.Event()

    @staticmethod
    def _entries(fields) -> list[str]:
        return [f.name if f.size == 1 else f"{f.name}.{i}" for f in fields for i in range(f.size)]

    @property
    def observation_features(self):
        pictures = {camera.name: (64, 64, 3) for camera in self._env.embodiment.cameras}
        return {**dict.fromkeys(self._entries(self._env.embodiment.state), float), **pictures}

    @property
    def action_features(self):
        return dict.fromkeys(self._entries(self._env.embodiment.action), float)

    @property
    def is_connected(self) -> bool:
        return self._reading is not None

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._reading = self._robot.connect()

    def calibrate(self) -> None: ...

    def configure(self) -> None: ...

    @property
    def seen(self):
        return self._reading.observation

    def get_observation(self):
        seen = self._reading.observation
        numbers = map(float, self._env.embodiment.pack_state(seen.state))
        entries = self._entries(self._env.embodiment.state)
        return {**dict(zip(entries, numbers, strict=True)), **seen.images}

    def send_action(self, action):
        if self.over.is_set():
            return action
        wanted = np.array([action[name] for name in self.action_features], np.float32)
        safe = self._envelope(wanted, self._reading.observation.state)
        self._digest.update(safe.action.tobytes())
        self.steps += 1
        self._reading = self._robot.command(safe.action)
        if self._reading.done or self._reading.info["success"] or self.steps == self._env.max_steps:
            self.over.set()
        return action

    def result(self):
        digest = self._digest.hexdigest()[:16]
        return {"success": bool(self._reading.info["success"]), "steps": self.steps, "actions": digest}

    def disconnect(self) -> None: ...


def run_client(config: RobotClientConfig, limit_s: float) -> RobotClient:
    """What lerobot's ``async_client`` does, until the episode is over; the client."""
    client = RobotClient(config)
    if not client.start():
        raise SystemExit("the server refused lerobot's client")
    receiving = threading.Thread(target=client.receive_actions, daemon=True)
    receiving.start()

    def end() -> None:
        client.robot.over.wait(limit_s)
        client.shutdown_event.set()

    threading.Thread(target=end, daemon=True).start()
    client.control_loop(client.robot.seen.instruction)  # in the thread that drew the first picture
    receiving.join(5)
    return client


def run_tabletop(address: str, task: str, arm: str, seeds: list[int], per_chunk: int):
    results = []
    for seed in seeds:
        config = RobotClientConfig(
            policy_type="act",
            pretrained_name_or_path=f"vla?embodiment={arm}&control_hz=10",
            robot=TabletopArmConfig(task=task, arm=arm, seed=seed),
            actions_per_chunk=per_chunk,
            server_address=address,
            chunk_size_threshold=0.0,  # ask again when the queue is empty, as the same episode in process
            fps=FPS,
            aggregate_fn_name="latest_only",
        )
        client = run_client(config, 120.0)
        results.append(client.robot.result())
        client.stop()
    return {"results": results}


def main() -> None:
    address, task, arm, per_chunk, *seeds = sys.argv[1:]
    print(json.dumps(run_tabletop(address, task, arm, [int(seed) for seed in seeds], int(per_chunk))))


if __name__ == "__main__":
    main()
