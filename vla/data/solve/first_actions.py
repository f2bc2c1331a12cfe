"""First actions that are none, found while the embodiment file is written: ``skip_first``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vla.data.check.config import CheckConfig
from vla.data.check.edges import Edges
from vla.data.check.signals import read_signals
from vla.data.description import DatasetDescription
from vla.data.mapped import MappedSource
from vla.data.source import RawDataset

_EPISODES = 200  # looked at, evenly spread


def without_placeholders(raw: RawDataset, draft: DatasetDescription) -> DatasetDescription:
    """The description with ``skip_first=1`` where nearly all episodes begin with an action that is none.

    ``evidence["skip_first"]`` says so. The lag of the draft is applied before: what it drops is no longer
    there to be found.
    """
    source = MappedSource(raw, replace(draft, instruction=draft.instruction or "-"))
    edges = Edges(arm=draft.embodiment, config=CheckConfig())
    for index in np.linspace(0, len(source) - 1, min(_EPISODES, len(source))).astype(int).tolist():
        signals, _ = read_signals(source, index)
        if signals is not None:
            edges.add(signals)
    found = [finding for finding in edges.conclude() if finding.kind == "placeholder_first"]
    if not found:
        return draft
    said = {"answer": 1, "confidence": round(found[0].value or 0.0, 3), "evidence": found[0].message}
    return replace(draft, skip_first=1, evidence={**draft.evidence, "skip_first": said})
