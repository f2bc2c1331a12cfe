"""Many clients of the policy server for a long time: does its memory stay flat, is everybody answered?

usage: python scripts/soak_server.py [--minutes 10] [--clients 32] [--out docs/results/serve_soak.json]

``vla serve`` runs the shipped policy in a process of its own. A third of the clients are ours, a third speak
openpi's protocol, a third vla-eval's; each asks at most ``--hz`` times a second, leaves after a hundred
answers, every other time without a good-bye, and comes back. The server's resident memory is read every two
seconds from its /metrics; growth is the difference between the medians of the third and the last quarter of
the time. Exits with 1 where it grew by more than 8 MB, somebody was not answered, or a session was left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import numpy as np
import tyro

from vla.contract import PolicyContract
from vla.errors import ConfigError, ContractError
from vla.files import read_json
from vla.serve.client import RemoteConfig, RemotePolicy
from vla.serve.line import Line
from vla.serve.wire import pack, unpack
from vla.testing import sample_observation

ROOT = Path(__file__).parents[1]
CONTRACT = PolicyContract.from_json(
    read_json(ROOT / "policies/vla_policies/pretrained/tabletop/policy.json", ContractError, "")
)
ARM = CONTRACT.embodiments["panda"]
SEEN = sample_observation(ARM)
VISIT, MAX_GROWTH_MB, WAIT_S = 100, 8.0, 60.0


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Soak the policy server.

    Args:
        minutes: how long.
        clients: at once.
        hz: questions a second of each, at most.
        out: where to write the result.
    """

    minutes: float = 10.0
    clients: int = 32
    hz: float = 10.0
    out: Path | None = None


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of ``vla serve`` in a process of its own."""
    command = [sys.executable, "-m", "vla.cli.main", "serve", "--embodiment", "panda", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            found = next((m for line in process.stdout if (m := re.search(r"ws://\S+", line))), None)
            if found is None:
                raise ConfigError("vla serve did not start: run it by hand to see why.")
            yield found.group()
        finally:
            process.terminate()


class Ours:
    """Our own client."""

    def __init__(self, url: str) -> None:
        self._policy = RemotePolicy(RemoteConfig(url=url, deadline_s=WAIT_S))

    def ask(self) -> np.ndarray:
        return self._policy.act([SEEN])[0].actions

    def close(self) -> None:
        self._policy.close()


class Openpi:
    """openpi's protocol."""

    _MESSAGE = pack(
        {
            "observation/image": SEEN.images["front"],
            "observation/wrist_image": SEEN.images["wrist"],
            "observation/state": ARM.pack_state(SEEN.state),
            "prompt": SEEN.instruction,
        }
    )

    def __init__(self, url: str) -> None:
        self._line = Line(url, max_size=1 << 24, deadline=time.monotonic() + WAIT_S)
        self._line.receive(time.monotonic() + WAIT_S)

    def ask(self) -> np.ndarray:
        self._line.send(self._MESSAGE, time.monotonic() + WAIT_S)
        return answer(self._line)["actions"]

    def close(self) -> None:
        self._line.close()


class VlaEval:
    """vla-eval's protocol: one action at a time."""

    def __init__(self, url: str) -> None:
        self._line = Line(f"{url}/vla-eval", max_size=1 << 24, deadline=time.monotonic() + WAIT_S)
        self._say("hello", {"protocol_version": 1})
        answer(self._line)
        self._say("episode_start", {})

    def ask(self) -> np.ndarray:
        state = ARM.pack_state(SEEN.state)
        self._say(
            "observation",
            {"images": dict(SEEN.images), "state": state, "task_description": SEEN.instruction},
        )
        return answer(self._line)["payload"]["actions"]

    def close(self) -> None:
        self._line.close()

    def _say(self, kind: str, payload: dict[str, Any]) -> None:
        message = {"type": kind, "payload": payload, "seq": 1, "timestamp": 0.0}
        self._line.send(pack(message, "text"), time.monotonic() + WAIT_S)


def answer(line: Line) -> Any:
    heard = line.receive(time.monotonic() + WAIT_S)
    if isinstance(heard, str):
        raise ConfigError(f"The server refused: {heard}")
    return unpack(heard, max_containers=100_000)


def visit(url: str, number: int, period_s: float, until: float, counts: Counter[str]) -> None:
    """Come, ask, leave, and come again, until the time is over."""
    kind = (Ours, Openpi, VlaEval)[number % 3]
    visits = 0
    try:
        while time.monotonic() < until:
            client = kind(url)
            visits += 1
            for _ in range(VISIT):
                began = time.monotonic()
                if began >= until:
                    break
                assert np.isfinite(client.ask()).all()
                counts[kind.__name__] += 1
                counts["slowest_ms"] = max(counts["slowest_ms"], int(1e3 * (time.monotonic() - began)))
                time.sleep(max(0.0, began + period_s - time.monotonic()))
            if visits % 2 or not isinstance(client, Openpi | VlaEval):
                client.close()
            else:
                client._line._socket.close()  # without a good-bye
            counts["visits"] += 1
    except Exception as error:  # noqa: BLE001  # a thread's failure is counted, and fails the run
        counts[f"error {type(error).__name__}: {error}"[:200]] += 1


def gauge(url: str, name: str) -> int:
    """A number of the server's metrics."""
    with urllib.request.urlopen(url.replace("ws", "http", 1) + "/metrics", timeout=60) as page:
        found = re.search(rf"^{name} (\d+)", page.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found.group(1))


def main() -> int:
    flags = tyro.cli(Soak, description=__doc__)
    counts: Counter[str] = Counter()
    resident_mb: list[float] = []
    with served() as url:
        until = time.monotonic() + 60 * flags.minutes
        threads = [
            threading.Thread(target=visit, args=(url, number, 1 / flags.hz, until, counts))
            for number in range(flags.clients)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < until:
            resident_mb.append(gauge(url, "process_resident_memory_bytes") / 2**20)
            time.sleep(2.0)
        for thread in threads:
            thread.join()
        time.sleep(1.0)
        sessions = gauge(url, "vla_sessions")
    quarter = max(1, len(resident_mb) // 4)
    third, last = np.median(resident_mb[2 * quarter : 3 * quarter]), np.median(resident_mb[3 * quarter :])
    growth_mb = float(last - third)
    errors = {key: n for key, n in counts.items() if key.startswith("error")}
    answers = sum(counts[kind.__name__] for kind in (Ours, Openpi, VlaEval))
    measured = (
        f"{flags.clients} clients for {flags.minutes:g} min: {answers} answers over {counts['visits']} "
        f"connections, {sum(errors.values())} errors, {sessions} sessions left; memory {growth_mb:+.1f} MB "
        f"from the third to the last quarter, {resident_mb[-1]:.0f} MB at the end; slowest answer "
        f"{counts['slowest_ms']} ms"
    )
    print(measured, errors or "")
    result = {
        "claim": "many clients of the policy server at once, of three protocols, the shipped policy behind",
        "target": f"32 clients for 10 min; memory grows by <= {MAX_GROWTH_MB:g} MB; no error or session left",
        "measured": measured,
        "command": f"python scripts/soak_server.py --minutes {flags.minutes:g}",
        "counts": dict(sorted(counts.items())),
        "resident_mb": [round(mb, 1) for mb in resident_mb],
    }
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(bool(errors) or bool(sessions) or growth_mb > MAX_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
