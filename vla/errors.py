"""One family of errors: each says what was given, what was expected, what exists and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VlaError(Exception):
    """Root of every error this package raises on purpose."""


class UnknownNameError(VlaError, KeyError):
    """A name that is not among those that exist; the message lists them and suggests the closest."""

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        self.kind, self.given, self.known = kind, given, tuple(sorted(known))
        close = difflib.get_close_matches(given, self.known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
        listing = ", ".join(self.known) or "(none registered)"
        self.message = f"Unknown {kind} {given!r}.{hint} Known: {listing}."
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would print the repr
        return self.message


class EmbodimentError(VlaError, ValueError):
    """An embodiment description that contradicts itself or its data."""


class IncompatibleError(VlaError, ValueError):
    """Two sides (policy, env, dataset, robot) that must not meet; carries the reasons."""

    def __init__(self, left: str, right: str, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        lines = "".join(f"\n  - {reason}" for reason in self.reasons)
        super().__init__(f"{left} is not compatible with {right}:{lines}")


class ContractError(VlaError, ValueError):
    """A policy contract that is missing, damaged, of another version, or not met."""


class StatisticsError(VlaError, ValueError):
    """Normalisation statistics that are missing or unusable."""


class StoreError(VlaError, ValueError):
    """An episode store that is missing, truncated, corrupt or of another version."""


class DatasetError(VlaError, ValueError):
    """A data set in a foreign format that is missing, damaged or contradicts itself; says which file."""


class UndescribedError(DatasetError):
    """A data set that can be read, but nobody says what its columns mean."""


class ConfigError(VlaError, ValueError):
    """A configuration that cannot be run."""


class CheckpointError(VlaError, ValueError):
    """A checkpoint that is missing, damaged or belongs to another configuration."""


class DivergenceError(VlaError, ArithmeticError):
    """Training met a loss, gradient or weight that is not finite."""


class EnvError(VlaError, RuntimeError):
    """A simulation that cannot be built, reset or stepped as asked."""


class MissingExtraError(VlaError, ImportError):
    """An optional dependency is not installed; says which extra brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}: pip install 'vla[{extra}]' "
            f"(in a clone: pip install -c constraints.txt -e '.[{extra}]')"
        )


class ObservationError(VlaError, ValueError):
    """An observation that does not fit the embodiment it is said to come from."""


class ActionError(VlaError, ValueError):
    """An action that is not finite or does not fit the embodiment it is meant for."""


class RobotError(VlaError, RuntimeError):
    """A robot that refuses, does not answer or is lost; says what to do before it may move again."""


class LoaderError(VlaError, RuntimeError):
    """A worker process that makes training batches failed or died."""


class WireError(VlaError, ValueError):
    """A message that is damaged, too large, or holds what no message may hold."""


class RemoteError(VlaError, RuntimeError):
    """A policy server that cannot be reached, refuses, or failed; says which and why."""
