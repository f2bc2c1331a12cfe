"""Starting a run from the weights of a policy: only where they mean in the run what they meant there."""

from __future__ import annotations

import json
from typing import Any

import torch

from vla.contract import PolicyContract
from vla.embodiment import compatible
from vla.errors import IncompatibleError
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyNet
from vla.models.saving import load_policy

#: Settings of the network that decide nothing once it is trained ...
_TRAINING_ONLY = ("num_noise", "localisation_weight", "keypoint_weight", "things_weight", "state_dropout")
#: ... and those that add parts or take parts away, whose weights are of no other: they may differ.
_MAY_DIFFER = ("compression", "keep", "reuse", "heads")
_PARTS = ("compress.", "heads.")
#: Of the head settings: what a head learns besides, with the same weights.
_DELAY = "prefix_delay"
#: One row a word, and one row an arm, of the backbone that has a vocabulary of its own.
WORDS, ARMS = "backbone.instruction.words.weight", "backbone.embodiment.weight"


def load_start(path: str, contract: PolicyContract) -> dict[str, torch.Tensor]:
    """Weights of the policy at ``path``, if they mean in this run what they meant there.

    Raises:
        IncompatibleError: arms, normalisation, cameras, words or network differ; with every reason.
    """
    net, start = load_policy(path)
    reasons = _start_reasons(start, contract)
    if reasons:
        raise IncompatibleError(f"the policy {path} (init_from)", "this run", reasons)
    return net.state_dict()


def start_from(net: PolicyNet, path: str, contract: PolicyContract) -> None:
    """Give ``net`` the weights of the policy at ``path``; parts, words and arms that are new keep their own,
    and those of arms that the run has no data of are left.

    Raises:
        IncompatibleError: as :func:`load_start`; or weights besides those of such parts are not there.
    """
    there, here = load_start(path, contract), net.state_dict()
    odd = sorted(key for key in there.keys() ^ here.keys() if not key.startswith(_PARTS))
    if odd:
        raise IncompatibleError(f"the policy {path} (init_from)", "this run", [f"weights differ: {odd[:5]}"])
    start = PolicyContract.load(path)
    for key, known in ((WORDS, _vocabulary), (ARMS, _arms)):
        if key in there:
            there[key] = _rows(there[key], here[key], known(start), known(contract))
    net.load_state_dict({key: there.get(key, weight) for key, weight in here.items()}, strict=True)


def known_words(path: str | None) -> list[str]:
    """Words that the policy at ``path`` knows: a run that starts from it goes on knowing them."""
    return [] if path is None else _vocabulary(PolicyContract.load(path))[2:]


def start_notes(path: str, contract: PolicyContract) -> list[str]:
    """How the network differs from that of the policy that the run starts from, in what may differ."""
    start = PolicyContract.load(path)
    there, here = _network(start), _network(contract)
    new = [word for word in _vocabulary(contract) if word not in _vocabulary(start)]
    arms = [name for name in _arms(contract) if name not in _arms(start)]
    words = [f"arms that {path} does not know begin untrained: {', '.join(arms)}"] if arms else []
    if lost := [name for name in _arms(start) if name not in _arms(contract)]:
        words.append(f"arms of {path} that this run has no data of, and will not drive: {', '.join(lost)}")
    words += [f"words that {path} does not know begin untrained: {', '.join(new)}"] if new else []
    if (delay := here["head_settings"].get(_DELAY, 0)) != (was := there["head_settings"].get(_DELAY, 0)):
        words.append(f"{_DELAY} is {delay} and was {was} in {path}: the flow head learns that from here on")
    return words + [
        f"{key} is {here[key]!r} and was {there[key]!r} in {path}: what is new there begins untrained"
        for key in _MAY_DIFFER
        if here[key] != there[key]
    ]


def _start_reasons(start: PolicyContract, run: PolicyContract) -> list[str]:
    reasons = []
    theirs, ours = sorted(start.embodiments), sorted(run.embodiments)
    for name in sorted(set(theirs) & set(ours)):
        answer = compatible(start.embodiments[name], run.embodiments[name])
        reasons += [f"embodiment {name!r}: {reason}" for reason in answer.reasons]
    for key in ("state_mode", "action_mode", "modes"):
        there, here = start.normalisation.get(key, {}), run.normalisation.get(key, {})
        if key == "modes":  # by arm
            here = {name: mode for name, mode in here.items() if name in theirs}
        if there != here:
            reasons.append(f"{key} {there!r} there, {here!r} here")
    if lost := sorted(set(_vocabulary(start)) - set(_vocabulary(run))):
        reasons.append(f"words that it knows and that this run's data never say: {', '.join(lost)}")
    if start.instruction["normalisation"] != run.instruction["normalisation"]:
        reasons.append("instructions become words in another way")
    left, right = _settings(start), _settings(run)
    for key in sorted(left.keys() | right.keys()):
        if left.get(key) != right.get(key):
            reasons.append(f"{key} {left.get(key)!r} there, {right.get(key)!r} here")
    return reasons


def _rows(weight: torch.Tensor, grown: torch.Tensor, known: list[str], now: list[str]) -> torch.Tensor:
    """``grown`` [len(now) D], with the rows of what was ``known`` and still is from ``weight``."""
    rows, kept = grown.clone(), [i for i, name in enumerate(known) if name in now]
    rows[[now.index(known[i]) for i in kept]] = weight[kept].to(grown)
    return rows


def _arms(contract: PolicyContract) -> list[str]:
    """In the order of their rows."""
    return list(_network(contract)["backbone_settings"].get("embodiments", ()))


def _vocabulary(contract: PolicyContract) -> list[str]:
    return list(contract.instruction["vocabulary"])


def _settings(contract: PolicyContract) -> dict[str, Any]:
    """What decides the meaning of weights beside arms and words, flat and as JSON values."""
    network = _network(contract)
    nested = network.pop("backbone_settings")
    network["head_settings"].pop(_DELAY, None)
    flat = {**{f"backbone {key}": value for key, value in nested.items()}, **network}
    flat |= {"camera_roles": list(contract.camera_roles), "image_size": contract.image_size}
    compared = {"backbone vocabulary", "backbone embodiments", "backbone camera_roles", "backbone image_size"}
    return {
        key: value for key, value in flat.items() if key not in {*compared, *_TRAINING_ONLY, *_MAY_DIFFER}
    }


def _network(contract: PolicyContract) -> dict[str, Any]:
    return json.loads(json.dumps(PolicyNetConfig.from_json(contract.network).to_json()))
