"""From the words a person types to a policy: ``expert``, ``zero``, ``random``, ``learned:PATH,key=value``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from vla import registry
from vla.embodiment import Embodiment
from vla.errors import ConfigError, ContractError, IncompatibleError, UnknownNameError
from vla.interfaces import Env, Policy, Suite

#: Steps to run before replanning, for a policy that does not say what suits it.
EXECUTION_HORIZON = 2

#: What a factory may ask for by parameter name, instead of the person giving it.
CONTEXT = ("suite", "env", "embodiment")


@dataclass(frozen=True)
class PolicySpec:
    """A registered policy by name, with the arguments of its factory.

    Written ``name[:path][,key=value ...]``; ``path`` becomes the factory's ``path`` argument and values
    are read as JSON where they are JSON, as text otherwise. A factory without ``path`` has a first
    ``key=value`` behind the colon: ``remote:url=ws://127.0.0.1:8000``.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> PolicySpec:
        """Read a spec; an unknown policy or argument raises with those that exist."""
        head, *pairs = text.split(",")
        name, colon, path = head.partition(":")
        arguments: dict[str, Any] = {}
        if "=" in path and "path" not in cls(name)._parameters():
            pairs = [path, *pairs]
        elif colon:
            arguments["path"] = path
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals or not key:
                raise ConfigError(f"Policy {text!r}: expected key=value after the comma, got {pair!r}.")
            arguments[key] = _value(value)
        spec = cls(name, arguments)
        known = [p for p in spec._parameters() if p not in CONTEXT]
        for key in arguments:
            if key not in known:
                raise UnknownNameError(f"argument of policy {name!r}", key, known)
        missing = [p for p, q in spec._parameters().items() if q.default is q.empty and p in known]
        if missing := [p for p in missing if p not in arguments]:
            example = f"{name}:{missing[0].upper()}" if missing == ["path"] else f"{name},{missing[0]}=..."
            raise ConfigError(f"Policy {text!r} needs {' and '.join(missing)}: write {example!r}.")
        return spec

    @property
    def is_bound(self) -> bool:
        """True where the policy is made for one env or arm, and so made anew for each."""
        return any(name in self._parameters() for name in CONTEXT)

    def build(self, *, suite: Suite | None = None, env: Env | None = None) -> Policy:
        """Make the policy, giving its factory the context it asks for."""
        embodiment: Embodiment | None = env.embodiment if env is not None else None
        context = {"suite": suite, "env": env, "embodiment": embodiment}
        asked = {name: context[name] for name in CONTEXT if name in self._parameters()}
        lacking = sorted(name for name, value in asked.items() if value is None)
        if lacking:
            raise ConfigError(f"Policy {self.name!r} needs {' and '.join(lacking)} and there is none here.")
        return registry.policy_factory(self.name)(**asked, **self.arguments)

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(registry.policy_factory(self.name)).parameters


class Contract(Protocol):
    """The part of a policy's contract (``policy.json``) that a control loop reads."""

    image_size: int
    execution_horizon: int
    weights_sha256: str


@runtime_checkable
class Embodied(Protocol):
    """A contract that says which arms it is for (optional)."""

    @property
    def embodiments(self) -> Mapping[str, Embodiment]: ...


@runtime_checkable
class Headed(Protocol):
    """A policy with several action heads, one of which decides (optional)."""

    head: str


def policy_facts(policy: Policy) -> dict[str, Any]:
    """What decides in a result, as JSON: the head in use and the contract in force; empty without one."""
    contract = contract_of(policy)
    if contract is None:
        return {}
    return {
        **({"head": policy.head} if isinstance(policy, Headed) else {}),
        "weights_sha256": contract.weights_sha256,
        "image_size": contract.image_size,
        "execution_horizon": contract.execution_horizon,
    }


_SILENT = object()


def check_contract(policy: Policy, embodiment: Embodiment) -> None:
    """Refuse an arm that the policy was not made for.

    Raises:
        ContractError: the policy does not say whether it has a contract, or has one that nobody checks.
        IncompatibleError: its contract, or the way its chunks are executed, excludes this arm.
    """
    contract, check = contract_of(policy), getattr(policy, "check", None)
    if check is None:
        if contract is None:
            return
        raise ContractError(
            f"{type(policy).__name__} has a contract and no check(embodiment) that enforces it: add one that "
            "raises IncompatibleError for an arm it was not made for."
        )
    check(embodiment)


@runtime_checkable
class Continuing(Protocol):
    """A policy whose chunks can continue the one under way (``Observation.promise``)."""

    def check_continues(self) -> None:
        """Raise :class:`IncompatibleError` where, as it is set up, it cannot."""
        ...


def check_continues(policy: Policy) -> None:
    """Refuse a policy whose chunks cannot continue the one under way: it would silently not do so.

    Raises:
        IncompatibleError: with the reason.
    """
    if not isinstance(policy, Continuing):
        raise IncompatibleError(
            type(policy).__name__,
            "real-time chunking",
            ["it cannot be asked to continue a chunk; learned policies with a flow or diffusion head can"],
        )
    policy.check_continues()


def contract_of(policy: Policy) -> Contract | None:
    """What the policy was trained with; None where it says that it has no contract.

    Raises:
        ContractError: it has no attribute ``contract``, so that nobody knows which arms it may drive.
    """
    contract = getattr(policy, "contract", _SILENT)
    if contract is _SILENT:
        raise ContractError(
            f"{type(policy).__name__} does not say which arms it may drive. Give it a contract and a "
            "check(embodiment) (a wrapper passes on those of the policy inside), or 'contract = None' where "
            "any arm will do."
        )
    return contract  # type: ignore[return-value]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
