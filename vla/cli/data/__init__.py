"""``vla data``: everything one does with demonstrations before training; one file a group of actions."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from vla.errors import UnknownNameError


@dataclass(frozen=True)
class Action:
    """One line of ``vla data --help``; its module has ``run_<action>(argv) -> exit code``."""

    module: str
    summary: str


ACTIONS = {
    "info": Action("look", "what is in it: episodes, cameras, columns and who describes them (any format)"),
    "verify": Action("look", "read a store of ours against its checksums; exit code 1 on damage"),
    "stats": Action(
        "look", "mean, deviation and quantiles of every state and action entry (any format, described)"
    ),
    "solve": Action("solve", "find out what the columns mean; --write saves it beside the data (any format)"),
    "check": Action(
        "check", "quality: jumps, idle, gaps, bad frames ...; table, page, exit code 1 (any format)"
    ),
    "fix": Action("fix", "repair what can be repaired, into a new store of ours (any format, described)"),
    "view": Action(
        "view", "a page (or a Rerun recording) of an episode: cameras, plots, instruction (any format)"
    ),
    "import": Action("importing", "any format, described -> a store of ours (zarr)"),
    "export": Action("exporting", "any format, described -> LeRobotDataset v3.0"),
    "archive": Action(
        "archive", "any format, described -> a store of ours with video for frames, a third of the size"
    ),
}


def run(argv: Sequence[str]) -> int:
    """``argv`` begins with the action."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0 if argv else 2
    name, *rest = argv
    if name not in ACTIONS:
        raise UnknownNameError("action of vla data", name, ACTIONS)
    module = importlib.import_module(f"vla.cli.data.{ACTIONS[name].module}")
    return getattr(module, f"run_{name}")(rest)


def help_text() -> str:
    lines = ["usage: vla data ACTION PATH [flags]        vla data ACTION --help lists the flags", ""]
    lines += [f"  {name:<8}{action.summary}" for name, action in ACTIONS.items()]
    lines += [
        "",
        "PATH is a directory, file or URL; docs/datasets.md lists the formats. Episodes count from 0.",
    ]
    lines += ["Described: an embodiment file, or a published layout that is known, says what columns mean."]
    return "\n".join(lines)
