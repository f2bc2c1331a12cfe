"""The console script ``vla``: finds the verb, and turns errors into messages and exit codes.

Exit codes: 0 done, 1 a check failed (``verify``, ``doctor``), 2 bad input, 130 interrupted.
Nothing heavy is imported before a verb is chosen, so ``vla --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from vla.errors import UnknownNameError, VlaError


@dataclass(frozen=True)
class Verb:
    """One line of the table of contents; its module has ``run(argv) -> exit code``."""

    summary: str
    example: str
    after_interrupt: str = "Nothing was written."


VERBS = {
    "doctor": Verb("what this machine can do, and how to mend what is missing", "vla doctor"),
    "demo": Verb(
        "make demonstrations with the scripted experts",
        "vla demo --tasks place --arms panda ur5e --episodes 200 --out runs/demos",
        "Committed episodes are valid; the same command makes the rest.",
    ),
    "data": Verb(
        "demonstrations in any format: look, solve, check, fix, view, import, export",
        "vla data info runs/demos",
    ),
    "train": Verb(
        "train a policy from a recipe",
        "vla train configs/quick.py --out runs/quick",
        "The last checkpoint is valid; add --resume to go on from it.",
    ),
    "eval": Verb(
        "judge a policy closed-loop, with intervals and a report; compare, spread, power: see their --help",
        "vla eval --policy default --tasks place --arms panda --episodes 25 --out runs/eval",
        "Finished episodes are recorded; the same command runs the rest.",
    ),
    "run": Verb(
        "speak to an arm",
        'vla run --robot sim:panda "put the red cube in the blue bowl"',
        "The arm was stopped; a video that was begun holds what was seen.",
    ),
    "console": Verb(
        "speak to an arm from a page: cameras, a line to say things, a stop button, a recording switch",
        "vla console --robot sim:panda",
        "The arm was stopped.",
    ),
    "robot": Verb(
        "calibrate a servo arm, and look at it",
        "vla robot calibrate --out arms/so101.json --port /dev/ttyACM0",
        "The servos may be limp: hold the arm. No file was written.",
    ),
    "serve": Verb(
        "answer robots and simulators over the network",
        "vla serve --policy default --embodiment panda",
        "The server has stopped.",
    ),
    "roofline": Verb(
        "what a chunk costs at least on a machine, and how close a measured time comes",
        "vla roofline smolvla --machines 4090 --measured-ms 36",
    ),
    "export": Verb(
        "a policy as ONNX files, the engine of a CPU",
        "vla export runs/quick --int8",
        "An older export stays.",
    ),
    "report": Verb("write the HTML report of an evaluation again", "vla report runs/eval"),
}


def help_text() -> str:
    """The table of contents printed by ``vla --help``."""
    lines = ["vla: train vision-language-action policies, judge them in simulation, speak to arms.", ""]
    lines += ["usage: vla VERB [flags]        vla VERB --help lists the flags", ""]
    lines += [f"  {name:<10}{verb.summary}" for name, verb in VERBS.items()]
    lines += ["", "examples:", *(f"  {verb.example}" for verb in VERBS.values())]
    lines += ["", "VLA_DEBUG=1 shows the traceback behind an error message."]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vla`` with these arguments (default: the command line); returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] == "--version":
        from vla import __version__

        print(f"vla {__version__}")
        return 0
    name = arguments[0]
    try:
        if name not in VERBS:
            raise UnknownNameError("verb", name, VERBS)
        _one_thread_per_process()
        return int(importlib.import_module(f"vla.cli.{name}").run(arguments[1:]))
    except VlaError as error:
        if os.environ.get("VLA_DEBUG"):
            raise
        print(f"vla: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nvla: interrupted. {VERBS[name].after_interrupt}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has left, as in `vla train RECIPE --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _one_thread_per_process() -> None:
    """Work is spread over processes; a thread pool in each only makes them wait for one another."""
    for variable, value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
        os.environ.setdefault(variable, value)


if __name__ == "__main__":
    sys.exit(main())
