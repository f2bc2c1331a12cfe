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
    "info": Action("look", "what is in it: episodes, cameras, columns (any format)"),
    "verify": Action("look", "read an episode store against its checksums; exit code 1 on damage"),
    "stats": Action("look", "mean, deviation and quantiles of every state and action entry (any format)"),
    "solve": Action(
        "solve", "find out what the columns of a data set mean; --write saves it beside the data"
    ),
    "check": Action("check", "quality: jumps, idle, gaps, bad frames ...; table, page, exit code 1"),
    "fix": Action("fix", "repair what can be repaired into a new store"),
    "view": Action("view", "a page (or a Rerun recording) of an episode: cameras, plots, instruction"),
    "import": Action("importing", "any format -> our zarr store"),
    "export": Action("exporting", "any format -> LeRobotDataset v3.0"),
    "archive": Action("archive", "an episode store -> a store of video frames, a third of the size"),
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
    return "\n".join(lines)
