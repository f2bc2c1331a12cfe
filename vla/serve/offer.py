"""What a server has to offer, and whom it fits: the contract as the first thing that is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from vla import __version__
from vla.contract import PolicyContract
from vla.control.policies import Continuing, Headed
from vla.embodiment import Embodiment
from vla.errors import ConfigError, IncompatibleError, UnknownNameError, VlaError
from vla.serve.batching import Shared
from vla.serve.keys import MAX_SIDE, KeyMap
from vla.serve.messages import VERSION
from vla.types import Observation

#: What the query of a URL may say about the client: ``ws://host:8000/?embodiment=panda&control_hz=10``.
DECLARATIONS = ("embodiment", "control_hz")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A policy as clients see it.

    Args:
        policy: with a :class:`~vla.contract.PolicyContract`.
        embodiment: whose observations those of a client are that names none; None: each must say.

    Raises:
        ConfigError: the policy has no such contract.
        UnknownNameError: it was not trained on that embodiment.
    """

    policy: Shared
    embodiment: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.policy.contract, PolicyContract):
            raise ConfigError(
                f"{type(self.policy).__name__} has no policy.json: the server would have nothing to hold its "
                "clients to. Serve a policy that 'vla train' wrote."
            )
        if self.embodiment is not None:
            self.named(self.embodiment)

    @property
    def contract(self) -> PolicyContract:
        return self.policy.contract

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What every client is told first; all of it JSON."""
        contract, arms = self.contract, self.contract.embodiments.items()
        return {
            "server": "vla",
            "version": __version__,
            "protocol": VERSION,
            "contract": replace(contract, provenance={}).to_json(),
            "trained_as": dict(getattr(self.policy, "trained_as", {})),
            "head": self.policy.head if isinstance(self.policy, Headed) else "",
            "remembers": self.policy.remembers,
            "continues": self._continues,
            "embodiment": self.embodiment,
            "keys": {name: self.openpi_keys(arm).to_json() for name, arm in arms},
            "act_keys": {name: self.act_keys(arm).to_json() for name, arm in arms},
            "gr00t_keys": {name: self.gr00t_keys(arm).to_json() for name, arm in arms},
            "pictures": (
                f"squares of up to {MAX_SIDE} px that are not {contract.image_size} px are resized (area), "
                "and the answer names them under 'resized'; anything else is refused"
            ),
        }

    @property
    def _continues(self) -> bool:
        if not isinstance(self.policy, Continuing):
            return False
        try:
            self.policy.check_continues()
        except IncompatibleError:
            return False
        return True

    def named(self, name: str) -> Embodiment:
        """The training embodiment of that name, or :class:`UnknownNameError`."""
        if name not in self.contract.embodiments:
            raise UnknownNameError("embodiment of this policy", name, self.contract.embodiments)
        return self.contract.embodiments[name]

    def openpi_keys(self, embodiment: Embodiment) -> KeyMap:
        return KeyMap.openpi(embodiment, self.contract.camera_roles, self.contract.image_size)

    def vla_eval_keys(self, embodiment: Embodiment) -> KeyMap:
        return KeyMap.vla_eval(embodiment, self.contract.camera_roles, self.contract.image_size)

    def act_keys(self, embodiment: Embodiment) -> KeyMap:
        return KeyMap.act(embodiment, self.contract.camera_roles, self.contract.image_size)

    def gr00t_keys(self, embodiment: Embodiment) -> KeyMap:
        return KeyMap.gr00t(embodiment, self.contract.camera_roles, self.contract.image_size)

    def declared(self, query: str) -> Embodiment:
        """The embodiment of a client that says in its URL what it is.

        Raises:
            VlaError: it says nothing and there are several, or what it says does not fit; with what does.
        """
        return self.stated(dict(parse_qsl(query, keep_blank_values=True)))

    def stated(self, said: Mapping[str, str]) -> Embodiment:
        """The same, from ``DECLARATIONS`` that came some other way than in a URL."""
        for key in said:
            if key not in DECLARATIONS:
                raise UnknownNameError("query parameter", str(key), DECLARATIONS)
        names = sorted(self.contract.embodiments)
        name = said.get("embodiment", self.embodiment or (names[0] if len(names) == 1 else None))
        if name is None:
            raise ConfigError(
                f"This policy drives {', '.join(names)}: say which in the URL (?embodiment={names[0]}), or "
                f"serve it for one ('vla serve --embodiment {names[0]}')."
            )
        arm = self.named(name)
        if "control_hz" in said and _number(said["control_hz"]) != arm.control_hz:
            raise IncompatibleError(
                "policy",
                "this client",
                [f"actions for {arm.control_hz} Hz, here {said['control_hz']!r:.40} Hz"],
            )
        return arm

    def opened(self, described: object) -> Embodiment:
        """The training embodiment that fits an embodiment that a client describes in full.

        Raises:
            VlaError: it does not, with every reason.
        """
        if not isinstance(described, dict):
            raise ConfigError(
                f"'embodiment' is a {type(described).__name__}; expected its description, a map."
            )
        try:
            return self.policy.check(Embodiment.from_json(described))
        except (TypeError, LookupError, AttributeError, ValueError, ArithmeticError) as error:
            if isinstance(error, VlaError):
                raise
            raise ConfigError(f"A damaged description of an embodiment: {error!r:.200}.") from error

    def check(self, observation: Observation) -> None:
        """Raise unless cameras, image size, state and promise of an observation are as trained."""
        trained: Mapping[str, str] = self.metadata["trained_as"]
        name = trained.get(observation.embodiment, observation.embodiment)
        self.contract.check_observation(observation, trained_as=name)
        if observation.promise is not None:
            if not self.metadata["continues"]:
                raise IncompatibleError("policy", "real-time chunking", ["it cannot continue a chunk"])
            self.contract.embodiments[name].check_action(observation.promise.actions)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
