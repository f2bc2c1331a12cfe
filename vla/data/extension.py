"""Whether new demonstrations are of the kind that a store already holds."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vla import registry
from vla.data.record import NoiseConfig
from vla.data.store import EpisodeStore
from vla.errors import IncompatibleError
from vla.interfaces import Cell, Env, Fingerprinted


def check_extension(
    suite_name: str, cells: Sequence[Cell], path: Path, *, image_size: int, noise: NoiseConfig | None
) -> None:
    """Raise :class:`IncompatibleError` where new episodes of a cell would differ in kind from those there.

    An env is built, without cameras, for each cell that has episodes and each arm that the store knows.
    Episodes or envs without a fingerprint are accepted, and told of on standard error.
    """
    suite, unknown = registry.suite(suite_name), []
    with EpisodeStore.open(path) as store:
        made = _made_with(suite_name, store)
        first = {cell.embodiment: cell for cell in reversed(cells) if cell.embodiment in store.embodiments}
        for cell in cells:
            if cell not in made and first.get(cell.embodiment) != cell:
                continue
            env = suite.make(cell.task, cell.embodiment, image_size=image_size, render=False)
            try:
                store.add_embodiment(env.embodiment)
                now = {"fingerprint": fingerprint_of(env), "noise": _noise_json(noise)}
            finally:
                env.close()
            for before in made.get(cell, ()):
                reasons = [
                    f"{key} {before[key]} then, {now[key]} now"
                    for key in now
                    if key in before and before[key] != now[key] and (key == "noise" or now[key])
                ]
                if reasons:
                    what = f"the episodes of {cell.task!r} with {cell.embodiment!r} in {path}"
                    raise IncompatibleError("what would be added", what, [*reasons, "use another path"])
                if "fingerprint" not in before or not now["fingerprint"]:
                    unknown.append(f"{cell.task}/{cell.embodiment}")
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        tqdm.write(f"{path}: no fingerprint to compare for {names}; extending them.", file=sys.stderr)


def _made_with(suite_name: str, store: EpisodeStore) -> dict[Cell, list[dict[str, Any]]]:
    """The ways in which each cell's episodes were made: noise and fingerprint, as far as known."""
    found: dict[Cell, list[dict[str, Any]]] = {}
    for info in store.episodes:
        origin = info.provenance
        if origin.get("suite") == suite_name and info.success:
            facts = {key: origin[key] for key in ("noise", "fingerprint") if key in origin}
            if facts.get("fingerprint", "") is None:
                del facts["fingerprint"]
            ways = found.setdefault(Cell(task=str(origin.get("task")), embodiment=info.embodiment), [])
            if facts not in ways:
                ways.append(facts)
    return found


def fingerprint_of(env: Env) -> str | None:
    """None where the env has none."""
    return env.fingerprint if isinstance(env, Fingerprinted) else None


def _noise_json(noise: NoiseConfig | None) -> Any:
    """As it comes back from a store."""
    return None if noise is None else json.loads(json.dumps(asdict(noise)))
