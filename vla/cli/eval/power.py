"""``vla eval power``: how many episodes a question takes, before anybody runs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vla.cli.flags import parse
from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Power:
    """Episodes that tell two success rates apart, or measure one, e.g. ``--tell 0.90 0.95``.

    Args:
        tell: two success rates to be told apart.
        known: a success rate and to plus or minus what it shall be known, e.g. 0.95 0.02.
        power: probability of finding a difference that is there.
        alpha: probability of finding one that is not; one minus the confidence of ``--known``.
        agreement: how far outcomes of both policies agree within a scene beyond what their rates give, 0..1.
    """

    tell: tuple[float, float] | None = None
    known: tuple[float, float] | None = None
    power: float = 0.8
    alpha: float = 0.05
    agreement: float = 0.0


def run_power(argv: Sequence[str]) -> int:
    flags = parse(Power, "eval power", argv)
    if flags.tell is None and flags.known is None:
        raise ConfigError("Give --tell RATE RATE, or --known RATE HALF_WIDTH: vla eval power --tell 0.9 0.95")
    from vla.eval.power import episodes_for_width, episodes_to_tell

    try:
        if flags.tell is not None:
            a, b = flags.tell
            given = {"power": flags.power, "alpha": flags.alpha}
            n = episodes_to_tell(a, b, agreement=flags.agreement, **given)
            most = episodes_to_tell(a, b, **given)
            print(
                f"{n} episodes, run by both policies, tell {100 * a:g} % from {100 * b:g} % with probability "
                f"{flags.power:g} (McNemar's exact test at {flags.alpha:g}; agreement {flags.agreement:g})."
            )
            if flags.agreement:
                print(f"Without agreement: {most}.")
        if flags.known is not None:
            rate, half = flags.known
            n = episodes_for_width(rate, half, 1 - flags.alpha)
            print(
                f"{n} episodes know a rate of {100 * rate:g} % to plus or minus {100 * half:g} points "
                f"(Wilson, {100 * (1 - flags.alpha):g} %)."
            )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return 0
