"""What is looked at before the first motion of a real arm, and what only the person beside it can see."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla.control.safety import SafetyEnvelope
from vla.embodiment import Embodiment
from vla.errors import VlaError
from vla.interfaces import Policy
from vla.robots import Reading

#: A picture whose grey values spread less is a covered lens or a dark room, 0..255.
LEAST_SPREAD = 4.0
#: For the person.
BESIDE_THE_ARM = (
    "the emergency stop is in your hand, and you have tried it today",
    "nobody and nothing that may not be touched is within the arm's reach",
    "cameras, table and base stand where the policy's demonstrations had them",
    'the list "First time on a real arm" of docs/robots has been gone through with this arm',
)


@dataclass(frozen=True)
class Item:
    """One line: what was looked at, what was found, and whether the arm may move (None: a person decides)."""

    name: str
    found: str
    fine: bool | None

    def __str__(self) -> str:
        sign = {True: "ok  ", False: "NO  ", None: "you "}[self.fine]
        return f"  {sign} {self.name}: {self.found}" if self.name else f"  {sign} {self.found}"


def checklist(
    reading: Reading,
    policy: Policy | None,
    envelope: SafetyEnvelope,
    *,
    speed: float,
    deadman_s: float | None,
) -> list[Item]:
    """Look at everything that can be looked at while nothing moves.

    Args:
        reading: of the arm, its instruction in force.
        policy: is asked once, and what it answers is not carried out; None: a person moves the arm.
        envelope: of the arm.
        speed: share of the policy's own.
        deadman_s: the robot's.
    """
    arm = envelope.embodiment
    fault = str(reading.info.get("fault") or "")
    items = [Item("arm", fault or f"{arm.name}, connected, stands still", not fault)]
    items += _cameras(arm, reading) or [Item("cameras", "none: the policy sees nothing", None)]
    items.append(_state(arm, reading))
    items += [] if policy is None else _answer(policy, reading, envelope, speed)
    off = envelope.config.warning()
    missing = [name for name in ("joint", "workspace", "collision") if name not in envelope.checks]
    blind = f"; not looked at: {', '.join(missing)}" if missing else ""
    items.append(
        Item("safety envelope", f"{', '.join(envelope.checks)}{blind}. {off}".strip(), None if off else True)
    )
    items.append(
        Item(
            "speed",
            f"{speed:.0%} of the policy's own: one step every {1 / (arm.control_hz * speed):.2g} s",
            True,
        )
    )
    silence = f"{deadman_s:.2g} s without a command" if deadman_s else "the arm has none"
    items.append(Item("deadman", silence, bool(deadman_s)))
    return items + [Item("", line, None) for line in BESIDE_THE_ARM]


def refusals(items: list[Item]) -> list[str]:
    """What keeps the arm from moving."""
    return [f"{item.name}: {item.found}" for item in items if item.fine is False]


def _cameras(arm: Embodiment, reading: Reading) -> list[Item]:
    items = []
    for camera in arm.cameras:
        image = reading.observation.images[camera.name]
        spread = float(image.astype(np.float32).mean(axis=2).std())
        size = f"{image.shape[1]} x {image.shape[0]} px"
        found = (
            f"{size}, all of one shade (spread {spread:.1f} of 255): lens covered, or no light?"
            if spread < LEAST_SPREAD
            else f"{size}, brightness {image.mean():.0f}, spread {spread:.0f} of 255"
        )
        items.append(Item(f"camera {camera.name}", found, spread >= LEAST_SPREAD))
    return items


def _state(arm: Embodiment, reading: Reading) -> Item:
    state = reading.observation.state
    broken = [name for name, value in state.items() if not np.isfinite(value).all()]
    if broken:
        return Item("state", f"not finite: {', '.join(broken)}", False)
    places = [field.name for field in arm.state if field.slot.endswith(".tcp_position")]
    if not places or not arm.workspace_low:
        values = ", ".join(f"{name} {_numbers(value)}" for name, value in state.items())
        return Item("state", values, True)
    tool = state[places[0]]
    inside = bool((tool >= arm.workspace_low).all() and (tool <= arm.workspace_high).all())
    box = f"{_numbers(arm.workspace_low)} to {_numbers(arm.workspace_high)}"
    place = "inside" if inside else "OUTSIDE"
    return Item("state", f"tool at {_numbers(tool)} m, {place} the box from {box}", inside)


def _answer(policy: Policy, reading: Reading, envelope: SafetyEnvelope, speed: float) -> list[Item]:
    """What the policy would do, and how long it takes to say so."""
    policy.reset()
    try:
        policy.act([reading.observation])  # the first answer is slower than the others
        policy.reset()
        began = time.monotonic()
        chunk = policy.act([reading.observation])[0]
    except VlaError as error:
        return [Item("policy", str(error), False)]
    finally:
        policy.reset()
    took_s, period_s = time.monotonic() - began, 1.0 / (envelope.embodiment.control_hz * speed)
    items = [
        Item("policy", f"answers in {1000 * took_s:.0f} ms, a step lasts {1000 * period_s:.0f} ms", None)
        if took_s > period_s
        else Item("policy", f"answers in {1000 * took_s:.0f} ms of {1000 * period_s:.0f} ms", True)
    ]
    if words := chunk.info.get("unknown_words"):
        items.append(Item("words", f"the policy does not know {', '.join(map(repr, words))}", None))
    if entries := chunk.info.get("unfamiliar"):
        items.append(Item("familiar", f"far outside what it was trained on: {', '.join(entries)}", None))
    return items


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values) + ")"
