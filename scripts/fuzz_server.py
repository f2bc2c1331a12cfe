"""Malformed and hostile messages against the policy server: nothing crashes, nothing reaches the policy.

usage: python scripts/fuzz_server.py [--messages 100000] [--seed 0] [--out docs/results/serve_fuzz.json]

The server runs in a process of its own, with the shipped contract and a policy that counts what it is asked,
and speaks everything it can: the websockets, /act, GR00T's protocol and lerobot's. Every message is wrong by
construction (fuzz_messages.py, fuzz_other_messages.py): random bytes; truncated, flipped, nested, endless and
lying msgpack, JSON, .npy files and pickles; wrong dtypes, shapes, sizes, names, NaN; foreign types in every
place; calls of os.system. So are connections (fuzz_connections.py): text and over-long frames; broken frames
and handshakes; pieces without end; ones that trickle, half close or vanish. Between them honest questions of
every protocol are answered, and only they: the policy must have been asked exactly as often as they asked.
Exits with 1 otherwise.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgpack
import numpy as np
import tyro
from fuzz_connections import LIMIT, Raw, bad_handshake, honest, misbehave, trickling
from fuzz_messages import ARM, CONTRACT, MESSAGES, Rng, loosely
from fuzz_others import Others

from vla.embodiment import Embodiment
from vla.serve.config import ServeConfig
from vla.serve.server import PolicyServer, serving
from vla.types import ActionChunk, Observation

HONEST_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class Fuzz:
    """Fuzz the policy server.

    Args:
        messages: how many.
        seed: of all of them.
        out: where to write the result.
    """

    messages: int = 100_000
    seed: int = 0
    out: Path | None = None


class CountingPolicy:
    """Zeros for every observation, counted."""

    contract, remembers, trained_as, head = CONTRACT, False, {}, "flow"

    def __init__(self) -> None:
        self.asked = 0

    def reset(self) -> None: ...

    def forget(self, episodes: Collection[int]) -> None: ...

    def check(self, embodiment: Embodiment) -> Embodiment:
        return self.contract.check(embodiment)

    def act(self, observations: Sequence[Observation]) -> list[ActionChunk]:
        self.asked += len(observations)
        zeros = np.zeros((CONTRACT.horizon, ARM.action_dim), np.float32)
        return [ActionChunk(actions=zeros, control_hz=ARM.control_hz) for _ in observations]


def run_server(pipe: Connection) -> None:
    """Serve until told otherwise; then say how often the policy was asked."""
    logging.disable()  # a line for every refusal
    policy = CountingPolicy()
    config = ServeConfig(
        port=0, gr00t_port=0, lerobot_port=0, embodiment="panda", max_message_bytes=LIMIT, idle_s=2.0
    )
    server = PolicyServer(config, lambda: policy)
    with serving(server):
        pipe.send(server.addresses)
        pipe.recv()
    pipe.send(policy.asked)


def talk(port: int, rng: Rng, counts: Counter[str]) -> None:
    """Send faulty messages, each answered with an error, until the server closes or it is enough."""
    name = str(rng.choice(list(MESSAGES)))
    path, make = MESSAGES[name]
    client = Raw(port, path)
    with client.socket:
        if not client.greeted() or (path == "/" and client.hear() is None):
            raise AssertionError("an honest handshake was refused")
        if path == "/vla-eval" and rng.integers(2):
            client.send(
                loosely({"type": "hello", "payload": {"protocol_version": 1}, "seq": 0, "timestamp": 0})
            )
            client.hear()
            if rng.integers(2):
                client.send(loosely({"type": "episode_start", "payload": {}, "seq": 0, "timestamp": 0}))
        for _ in range(20):
            client.send(make(rng))
            counts[name] += 1
            heard = client.hear()
            if heard is None or heard[0] in (1, 8):
                return
            answer = msgpack.unpackb(heard[1], strict_map_key=False)
            if answer.get("type") not in ("error", "hello"):
                raise AssertionError(f"{name}: answered with {answer!s:.300}")


def gauge(port: int, name: str) -> int:
    """A number of the server's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        found = re.search(rf"^{name} (\d+)", page.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def resident_mb(port: int) -> float:
    return gauge(port, "process_resident_memory_bytes") / 2**20


def attack(port: int, others: Others, rng: Rng, num_messages: int, counts: Counter[str]) -> tuple[int, float]:
    """Send them all; how many honest observations stood between them, and the memory after a tenth, MB."""
    told, asked, before_mb = 0, 0, 0.0
    with trickling(port, 10):
        while (done := counts.total()) < num_messages:
            if done >= told * HONEST_EVERY:
                told += 1
                honest(port)
                asked += 1 + others.honest()
                if told * HONEST_EVERY * 10 >= num_messages and not before_mb:
                    before_mb = resident_mb(port)
            kind = rng.random()
            for least, what in KINDS:
                if kind < least:
                    what(port, others, rng, counts)
                    break
    return asked, before_mb


#: Chance, summed up, and what then happens; a turn of ``act`` is one message, of the next three up to twenty.
KINDS: list[tuple[float, Callable[[int, Others, Rng, Counter[str]], None]]] = [
    (0.255, lambda port, others, rng, counts: others.act(rng, counts)),
    (0.268, lambda port, others, rng, counts: others.gr00t(rng, counts)),
    (0.281, lambda port, others, rng, counts: others.lerobot(rng, counts)),
    (0.888, lambda port, others, rng, counts: talk(port, rng, counts)),
    (0.896, lambda port, others, rng, counts: others.frames(rng, counts)),
    (0.938, lambda port, others, rng, counts: misbehave(port, rng, counts)),
    (1.00, lambda port, others, rng, counts: bad_handshake(port, rng, counts)),
]


def main() -> int:
    flags = tyro.cli(Fuzz, description=__doc__)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=run_server, args=(theirs,), daemon=True)
    process.start()
    addresses = ours.recv()
    port, others = int(addresses["websocket"].rpartition(":")[2]), Others(addresses)
    rng, counts, began = np.random.default_rng(flags.seed), Counter[str](), time.monotonic()
    honest_asked, before_mb = attack(port, others, rng, flags.messages, counts)
    others.close()
    after_mb, took_s = resident_mb(port), time.monotonic() - began
    deadline = time.monotonic() + 20
    while (sessions := gauge(port, "vla_sessions")) and time.monotonic() < deadline:
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as page:
        found = re.search(r'cause="failure"\} (\d+)', page.read().decode())
    failures = int(found.group(1)) if found else 0  # what the server did not expect and survived
    alive = process.is_alive()
    ours.send(None)
    asked = ours.recv()
    process.join(20)
    good = alive and not failures and asked == honest_asked and sessions == 0
    crashes = int(not alive) + failures
    measured = (
        f"{counts.total()} messages of {len(counts)} sorts in {took_s:.0f} s: {crashes} crashes, "
        f"{asked - honest_asked} reached the policy, {sessions} sessions left; {honest_asked} honest ones in "
        f"between, all answered; memory {before_mb:.0f} MB after a tenth, {after_mb:.0f} MB at the end"
    )
    print(measured)
    result = {
        "claim": "malformed and hostile messages and connections against the policy server",
        "target": "0 crashes; 0 reach the policy; no session left",
        "measured": measured,
        "command": f"python scripts/fuzz_server.py --messages {flags.messages}",
        "sorts": dict(sorted(counts.items())),
    }
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
