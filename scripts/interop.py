"""The policy server with other projects' real clients, closed loop: is every action the policy's own?

usage: python scripts/interop.py [--episodes 4] [--venvs DIR] [--out docs/results/interop.json]

Starts ``vla serve`` for the shipped policy as a person would, speaking everything it can, and runs the same
episodes of the tabletop suite with the policy in process and through each client: our own; openpi-client, and
the /act and GR00T clients of inspect-robots' plugins, behind a pipe in environments of their own; vla-eval's
own runner, in step and live; lerobot's RobotClient in lerobot's Python (scripts/lerobot_peer.py). What is
executed must be the same, bit for bit; live runs on the wall clock and only has to run.
Clients also say what the contract forbids, and must be told why. Exits with 1 where anything differs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import mujoco
import numpy as np
import tyro
from interop_clients import OpenpiClient, PluginClient
from lerobot_peer import lerobot_python, run_in_peer

from vla import registry
from vla.contract import PolicyContract
from vla.errors import ConfigError
from vla.eval.records import EpisodeKey
from vla.eval.rollout import run_episode
from vla.interfaces import Policy
from vla.serve.client import RemoteConfig, RemotePolicy

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
def served(arm: str) -> Iterator[dict[str, str]]:
    """The addresses of ``vla serve`` in a process of its own: websocket, gr00t, lerobot."""
    command = [sys.executable, "-m", "vla.cli.main", "serve", "--embodiment", arm]
    for flag in ("--port", "--gr00t-port", "--lerobot-port"):
        command += [flag, "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            found: dict[str, str] = {}
            for line in process.stdout:
                if match := re.match(r"  (\S.*\S) +((?:ws|tcp)://\S+|[\d.]+:\d+)$", line.rstrip()):
                    found[match[1].split()[0].rstrip(",")] = match[2]
                if line.startswith("Ctrl-C"):
                    break
            if set(found) < {"openpi", "gr00t", "lerobot"}:
                raise ConfigError("vla serve did not start: run it by hand to see why.")
            yield found
        finally:
            process.terminate()


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


def run_lerobot(address: str, flags: Interop, per_chunk: int) -> list[dict[str, Any]]:
    """What lerobot's RobotClient did, in lerobot's Python."""
    pip = [str(lerobot_python()), "-m", "pip", "install", "-q", f"mujoco=={mujoco.__version__}"]
    subprocess.run(pip, check=True)
    seeds = [str(seed) for seed in range(flags.first_seed, flags.first_seed + flags.episodes)]
    arguments = [address, flags.task, flags.arm, str(per_chunk), *seeds]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # it writes logs where it is
        return run_in_peer(SIDES / "lerobot_side.py", arguments, timeout_s=600, extras=["async"])["results"]


def run_plugins(
    python: Path, addresses: dict[str, str], contract: PolicyContract, flags: Interop, image_size: int
) -> tuple[dict[str, Any], list[str]]:
    """What the plugins' clients did, and what they were told of an observation that does not fit."""
    http = addresses["openpi"].replace("ws", "http", 1) + "/act"
    results, told = {}, []
    words = {"annotation.human.task_description": [["go"]]}
    tcp = addresses["gr00t"].removeprefix("tcp://").split(":")
    for kind, name, where, unfit in (
        ("act", "inspect-robots-yam 0.37.0 (/act)", [http], {"instruction": "go"}),
        ("gr00t", "inspect-robots-unitree-g1 0.1.1 (GR00T)", tcp, {"language": words}),
    ):
        command = [str(python), str(SIDES / "inspect_robots_side.py"), kind, *where]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            client = PluginClient(process, kind, contract, contract.embodiments[flags.arm])
            results[name] = run(client, flags, contract.execution_horizon, image_size)
            told.append(client.ask(unfit)["error"])
            assert process.stdin is not None
            process.stdin.close()
        print(f"{name}: {results[name]}\n  told: {told[-1]}", flush=True)
    return results, told


def main() -> int:
    flags = tyro.cli(Interop, description=__doc__)
    openpi_python = client_python(flags.venvs, "openpi")
    vla_eval_python = client_python(flags.venvs, "vla_eval")
    plugin_python = client_python(flags.venvs, "inspect_robots")
    policy = registry.policy_factory("learned")()
    horizon, image_size = policy.contract.execution_horizon, policy.contract.image_size
    arm = policy.contract.embodiments[flags.arm]
    here = run(policy, flags, horizon, image_size)
    print(f"in process: {here}", flush=True)
    results: dict[str, Any] = {}
    with served(flags.arm) as addresses:
        url = addresses["openpi"]
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
        plugins, told_plugins = run_plugins(plugin_python, addresses, policy.contract, flags, image_size)
        results |= plugins
        name = "lerobot 0.6.1's RobotClient"
        results[name] = run_lerobot(addresses["lerobot"], flags, horizon)
        print(f"{name}: {results[name]}", flush=True)
        ran = run_vla_eval(vla_eval_python, url, "sync", flags, flags.episodes)
        results["vla-eval 0.8.0, in step"] = ran["results"]
        print(f"vla-eval: {ran}", flush=True)
        live = run_vla_eval(vla_eval_python, url, "live", flags, 1)
        print(f"vla-eval, live: {live}", flush=True)
    same = {name: found == here for name, found in results.items()}
    live_ran = len(live["results"]) == 1 and not live["errors"]
    expected = ("without 'observation/image'", "without 'full_image'", "without 'video/front'")
    all_told = [told, *told_plugins]
    refused = all(words in text for words, text in zip(expected, all_told, strict=True))
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
        "told": all_told,
    }
    print(result["measured"])
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
