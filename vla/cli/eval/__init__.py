"""``vla eval``: judge a policy; compare or race two; see how far training runs differ; plan episodes."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

#: What may stand before the flags; anything else judges a policy.
ACTIONS = {
    "compare": "two judged policies on the same episodes: who is better, by how much, how sure",
    "cards": "why episodes failed: going on from their middle under something else",
    "latency": "success against the time that the policy takes, for each way of executing",
    "race": "two policies side by side until one is shown to be better",
    "spread": "the same recipe trained with several seeds: what is the recipe and what is luck",
    "power": "how many episodes a question takes",
}


def run(argv: Sequence[str]) -> int:
    """``argv`` begins with an action, or with the flags of judging."""
    if argv and argv[0] in ACTIONS:
        module = importlib.import_module(f"vla.cli.eval.{argv[0]}")
        return getattr(module, f"run_{argv[0]}")(argv[1:])
    from vla.cli.eval.judge import run_judge

    return run_judge(argv)
