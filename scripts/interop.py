"""The policy server with other projects' real clients, closed loop: is every action the policy's own?

usage: python scripts/interop.py [--episodes 4] [--venvs DIR] [--out docs/results/interop.json]

Starts ``vla serve`` for the shipped policy as a person would, and runs the same episodes of the tabletop
suite five times: with the policy in process, through our own client, through openpi-client (its pins
contradict ours: it lives in a virtual environment of its own and is spoken to through a pipe), and by
vla-eval's own runner, in step and live. What is executed must be the same, bit for bit; live runs on the wall
clock and only has to run. openpi's client also says what the contract forbids, and must be told why. Exits
with 1 where anything differs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import msgpack
import numpy as np
import tyro

from vla import registry
from vla.contract import PolicyContract
from vla.embodiment import Embodiment
from vla.errors import ConfigError
from vla.eval.records import EpisodeKey
from vla.eval.rollout import run_episode
from vla.interfaces import Policy
from vla.serve.client import RemoteConfig, RemotePolicy
from vla.serve.wire import pack, unpack
from vla.types import ActionChunk, Observation

ROOT = Path(__file__).parents[1]
SIDES = Path(__file__).with_name("interop")


@dataclass(frozen=True, kw_only=True)
class Interop:
    """Real clients against the policy server.

    Args:
        episodes: of each client.
        task, arm: of the tabletop suite.
        first_seed: held-out seeds from here on.
        venvs: folder of the clients' environments, made where they are missing.
        out: where to write the result.
    """

    episodes: int = 4
    task: str = "place"
    arm: str = "panda"
    first_seed: int = 50_000
    venvs: Path = ROOT / ".venv-interop"
    out: Path | None = None


def client_python(folder: Path, name: str) -> Path:
    """The interpreter of a client's environment, made from its pins where it is missing."""
    pins, python = SIDES / f"{name}.txt", folder / name / "bin" / "python"
    stamp = folder / name / "pins.txt"
    if not stamp.is_file() or stamp.read_text() != pins.read_text():
        venv.create(folder / name, with_pip=True, symlinks=True)
        command = [str(python), "-m", "pip", "install", "-q", "--no-deps", "-r", str(pins)]
        subprocess.run(command, check=True)
        stamp.write_text(pins.read_text())
    return python


@contextlib.contextmanager
def served(arm: str) -> Iterator[str]:
    """The address of ``vla serve`` in a process of its own."""
    command = [sys.executable, "-m", "vla.cli.main", "serve", "--embodiment", arm, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.search(r"ws://\S+", line):
                    break
            else:
                raise ConfigError("vla serve did not start: run it by hand to see why.")
            yield found.group()
        finally:
            process.terminate()


class OpenpiClient:
    """openpi's client, in its own process, as a policy."""

    def __init__(self, process: subprocess.Popen[bytes], contract: PolicyContract, arm: Embodiment) -> None:
        self.contract, self._process, self._arm = contract, process, arm
        self._unpacker = msgpack.Unpacker(process.stdout, read_size=1, strict_map_key=False)
        self.keys = self._hear()["ok"][arm.name]

    def check(self, embodiment: Embodiment) -> None:
        self.contract.check(embodiment)

    def reset(self) -> None:
        """openpi's protocol has none."""

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        (seen,) = observations
        message: dict[str, Any] = {"prompt": seen.instruction}
        for key, meaning in self.keys.items():
            if "camera" in meaning:
                message[key] = seen.images[meaning["camera"]]
            elif "fields" in meaning:
                message[key] = np.concatenate([seen.state[name] for name, *_ in meaning["fields"]])
        answer = self.ask(message)["ok"]
        info = {
            key: value for key, value in answer["info"].items() if isinstance(value, np.ndarray | list | str)
        }
        return [ActionChunk(actions=answer["actions"], control_hz=answer["control_hz"], info=info)]

    def ask(self, message: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(pack(message))
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> Any:
        return unpack(msgpack.packb(next(self._unpacker)), max_containers=10_000)


def run(policy: Policy, flags: Interop, horizon: int, image_size: int) -> list[dict[str, Any]]:
    """success, steps and the digest of what was executed, an episode a seed."""
    env = registry.suite("tabletop").make(flags.task, flags.arm, image_size=image_size)
    found = []
    for seed in range(flags.first_seed, flags.first_seed + flags.episodes):
        key = EpisodeKey(
            task=flags.task, embodiment=flags.arm, seed=seed, variant="base", wording="train", ablation="none"
        )
        record = run_episode(env, policy, suite="tabletop", key=key, execution_horizon=horizon)
        found.append({"success": record.success, "steps": record.steps, "actions": record.actions})
    env.close()
    return found


def run_vla_eval(python: Path, url: str, mode: str, flags: Interop, num_episodes: int) -> dict[str, Any]:
    """What vla-eval's runner did; its environment sees our packages behind its own."""
    seeds = [str(seed) for seed in range(flags.first_seed, flags.first_seed + num_episodes)]
    side = SIDES / "vla_eval_side.py"
    start = f"import sys, runpy; sys.path[1:1] = {[str(SIDES)]!r}; sys.path += {sys.path[1:]!r}; " + (
        f"sys.argv[1:] = {[f'{url}/vla-eval', mode, flags.task, flags.arm, *seeds]!r}; "
        f"runpy.run_path({str(side)!r}, run_name='__main__')"
    )
    ran = subprocess.run([str(python), "-c", start], capture_output=True, text=True, check=False, timeout=900)
    if ran.returncode:
        raise ConfigError(f"vla-eval failed:\n{ran.stderr[-3000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def main() -> int:
    flags = tyro.cli(Interop, description=__doc__)
    openpi_python = client_python(flags.venvs, "openpi")
    vla_eval_python = client_python(flags.venvs, "vla_eval")
    policy = registry.policy_factory("learned")()
    horizon, image_size = policy.contract.execution_horizon, policy.contract.image_size
    arm = policy.contract.embodiments[flags.arm]
    here = run(policy, flags, horizon, image_size)
    print(f"in process: {here}", flush=True)
    results: dict[str, Any] = {}
    with served(flags.arm) as url:
        remote = RemotePolicy(RemoteConfig(url=url))
        results["our client"] = run(remote, flags, horizon, image_size)
        remote.close()
        print(f"our client: {results['our client']}", flush=True)
        command = [str(openpi_python), str(SIDES / "openpi_side.py"), url]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            client = OpenpiClient(process, policy.contract, arm)
            results["openpi-client 0.1.2"] = run(client, flags, horizon, image_size)
            told = client.ask({"observation/state": np.zeros(3, np.float32)})["error"]
            assert process.stdin is not None
            process.stdin.close()
        print(f"openpi-client: {results['openpi-client 0.1.2']}\n  told: {told}", flush=True)
        ran = run_vla_eval(vla_eval_python, url, "sync", flags, flags.episodes)
        results["vla-eval 0.8.0, in step"] = ran["results"]
        print(f"vla-eval: {ran}", flush=True)
        live = run_vla_eval(vla_eval_python, url, "live", flags, 1)
        print(f"vla-eval, live: {live}", flush=True)
    same = {name: found == here for name, found in results.items()}
    live_ran = len(live["results"]) == 1 and not live["errors"]
    refused = "without 'observation/image'" in told
    good = all(same.values()) and live_ran and refused
    successes = sum(record["success"] for record in here)
    said = "; ".join(f"{name}: {'same' if equal else 'DIFFERS'}" for name, equal in same.items())
    result = {
        "claim": (
            f"the shipped policy served to other projects' real clients, closed loop: {flags.task} with "
            f"{flags.arm}, {flags.episodes} episodes each"
        ),
        "target": "every executed action as in process, bit for bit; what does not fit is refused by name",
        "measured": (
            f"in process {successes} of {flags.episodes}; {said}; vla-eval 0.8.0, live at 10 Hz: "
            f"{'ran' if live_ran else 'FAILED'}; refusal: {'named' if refused else 'NOT NAMED'}"
        ),
        "command": "python scripts/interop.py"
        + (f" --episodes {flags.episodes}" if flags.episodes != 4 else ""),
        "in_process": here,
        "clients": results,
        "live": live,
        "told": told,
    }
    print(result["measured"])
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
