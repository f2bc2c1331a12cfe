"""Time grids of the flow: where on the way from noise to actions the steps are taken."""

from __future__ import annotations

import math
from collections.abc import Callable

from vla.errors import ConfigError, UnknownNameError

#: Share of the steps done (0..1) -> time reached (0..1), increasing, with fixed ends.
SCHEDULES: dict[str, Callable[[float], float]] = {
    "uniform": lambda share: share,
    "early": lambda share: 1 - math.cos(math.pi / 2 * share),
    "late": lambda share: math.sin(math.pi / 2 * share),
}


def time_grid(schedule: str, num_steps: int) -> tuple[float, ...]:
    """The times 0 = t0 < ... < t_n = 1 between which ``num_steps`` Euler steps are taken.

    ``uniform``: equal steps; ``early``: short ones first, where the choice between modes falls; ``late``:
    short ones last, where the chunk gets its detail.

    Raises:
        UnknownNameError, ConfigError: no such schedule; fewer than one step.
    """
    if schedule not in SCHEDULES:
        raise UnknownNameError("flow schedule", schedule, SCHEDULES)
    if num_steps < 1:
        raise ConfigError(f"A flow needs at least one step, not {num_steps}.")
    inner = (SCHEDULES[schedule](i / num_steps) for i in range(1, num_steps))
    return (0.0, *inner, 1.0)
