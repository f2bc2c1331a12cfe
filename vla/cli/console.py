"""``vla console``: a page before an arm: cameras, a line to say things, a stop button, a recording switch."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vla.cli.flags import parse, policy_spec


@dataclass(frozen=True, kw_only=True)
class Console:
    """Speak to an arm from a page in the browser; the page is served on loopback, to whoever has its address.

    Args:
        robot: kind and arm, e.g. sim:panda.
        policy: default (shipped), a directory that vla train wrote, expert, random, zero, or NAME:PATH.
        head: which of the policy's action heads decides; its default if not given.
        suite: registered suite that a simulated arm lives in.
        seed: where the search for a scene that fits a sentence starts.
        task: scene that it opens with; the suite's first if not given.
        execution: what the arm does while the policy thinks: hold still (sync), execute the last chunk on
            (async), average all chunks (ensemble), have it continued by the next (rtc).
        planner: takes apart what is said: rules, openai:MODEL@URL, local:FOLDER, or off.
        record: episode store that the page's switch records into (made if missing); nothing can be recorded
            without.
        host: loopback address to listen on.
        port: 0 takes one that is free.
        open: open the page in a browser, where there is one.
    """

    robot: str = "sim:panda"
    policy: str = "default"
    head: str | None = None
    suite: str = "tabletop"
    seed: int = 0
    task: str = ""
    execution: Literal["sync", "async", "ensemble", "rtc"] = "sync"
    planner: str = "rules"
    record: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8321
    open: bool = True


def run(argv: Sequence[str]) -> int:
    flags = parse(Console, "console", argv)
    from vla.console.serving import serve_console
    from vla.session import SessionConfig

    config = SessionConfig(
        robot=flags.robot,
        policy=policy_spec(flags.policy, flags.head),
        suite=flags.suite,
        seed=flags.seed,
        task=flags.task,
        execution=flags.execution,
        planner="" if flags.planner == "off" else flags.planner,
        record=flags.record,
        realtime=True,
    )

    def ready(url: str) -> None:
        print(f"console: {url}\nCtrl-C, or 'quit' on the page, ends it.", flush=True)
        if flags.open:
            webbrowser.open(url)

    result = serve_console(config, host=flags.host, port=flags.port, ready=ready)
    print(result)
    return 0
