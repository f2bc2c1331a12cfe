"""What a learned policy is judged on where nobody says: the tasks and arms that it was taught."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vla.eval.grid import EvalConfig
from vla.interfaces import Suite

LOG = logging.getLogger(__name__)


def taught(contract: object) -> tuple[set[str], set[str]]:
    """Tasks and arms of a contract's demonstrations, as its provenance says; empty where it does not."""
    provenance = getattr(contract, "provenance", None)
    data = provenance.get("data") if isinstance(provenance, Mapping) else None
    cells: list[Any] = [cell for source in data or () for cell in source.get("episodes", ())]
    pairs = [str(cell).rpartition("/") for cell in cells]
    return {task for task, _, _ in pairs if task}, {arm for _, _, arm in pairs if arm}


def covered(config: EvalConfig, suite: Suite, contract: object) -> EvalConfig:
    """The evaluation with the tasks and arms that are left open filled in; others are named in a warning."""
    tasks, arms = taught(contract)
    found = {}
    for kind, name, given, known, all_of in (
        ("tasks", "tasks", config.tasks, tasks, suite.tasks),
        ("arms", "embodiments", config.embodiments, arms, suite.embodiments),
    ):
        kept = tuple(x for x in all_of if x in known)
        if given or not kept or len(kept) == len(all_of):
            continue
        found[name] = kept
        missing = ", ".join(x for x in all_of if x not in kept)
        LOG.warning("The policy was not taught these %s, which are left out unless named: %s.", kind, missing)
    return replace(config, **found)
