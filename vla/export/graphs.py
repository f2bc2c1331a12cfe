"""What is exported: a policy's prefix graph and step graph, with fixed shapes and plain tensors in and out.

    observation ─► PolicyPrefix ─► memory, mask, location_dm          once an observation
    x           ─► ExportedSteps(memory, mask) ─► x                    all denoising steps, unrolled

The first is the graph of :mod:`vla.models.static_graphs` after backbone, projector and trunk, the second is
in :mod:`vla.export.steps`.

Shapes: B batch, C cameras, L words, M prefix and state tokens, N blocks, n heads, h width per head,
H horizon, A action entries.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vla import spaces
from vla.contract import PolicyContract
from vla.errors import ConfigError, UnknownNameError
from vla.models.backbones.interface import PrefixFeatures
from vla.models.heads.flow import FlowHead
from vla.models.heads.history import Past
from vla.models.heads.regression import RegressionHead
from vla.models.policy_net import PolicyInputs, PolicyNet
from vla.models.static_graphs import PrefixGraph

#: Names of the prefix graph's inputs, in order; as in :class:`vla.models.policy_net.PolicyInputs`.
INPUTS = ("images", "image_mask", "token_ids", "token_mask", "embodiment_id", "state", "state_mask")
#: Those that follow where the policy has a history; as in :class:`vla.models.heads.history.Past`.
PAST = ("past_state", "past_action", "past_there")
MEMORY = ("memory", "memory_mask", "location_dm")
#: Those of the step graph.
STEPS = ("x", "memory", "memory_mask")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What is fixed in the files: rows at once, and tokens of an instruction (shorter ones are padded)."""

    batch: int
    words: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.words < 1:
            raise ConfigError(f"Batch and words are at least 1: {self.batch}, {self.words}.")


class PolicyPrefix(nn.Module):
    """Everything that is computed once an observation."""

    def __init__(self, net: PolicyNet, head: FlowHead | RegressionHead) -> None:
        super().__init__()
        self.net, self.keys_values = net, PrefixGraph(head.decoder, head.decoder.places.dtype)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs by :func:`names_of` -> memory [N 2 B n M h], mask bool [B M], location [B 2 3], dm."""
        given = policy_inputs(inputs)
        encoded = self.net.encode(given)
        features, mask = encoded.prefix.features, encoded.prefix.mask
        if mask is None:  # learned queries are always there
            mask = features.new_ones(features.shape[:2], dtype=torch.bool)
        memory, mask_BM = self.keys_values(features, mask, self.net.told(encoded, given))
        return memory, mask_BM, encoded.location_dm


def exportable(net: PolicyNet, name: str) -> FlowHead | RegressionHead:
    """The head of that name, or an error that says why this policy has no fixed graphs."""
    if name not in net.heads:
        raise UnknownNameError("action head of this policy", name, net.heads)
    head = net.heads[name]
    if not isinstance(head, FlowHead | RegressionHead):
        raise ConfigError(
            f"Only flow and regression heads have static graphs to export; {name!r} is a "
            f"{type(head).__name__}. The policy's heads: {', '.join(sorted(net.heads))}."
        )
    return head


def names_of(net: PolicyNet) -> tuple[str, ...]:
    """Names of the prefix graph's inputs."""
    return INPUTS if net.history is None else (*INPUTS, *PAST)


def policy_inputs(values: Sequence[Tensor]) -> PolicyInputs:
    """The prefix graph's inputs, in order, as the network takes them."""
    past = values[len(INPUTS) :]
    given: dict[str, Any] = dict(zip(INPUTS, values, strict=False))
    return PolicyInputs(**given, past=Past(*past) if past else None)


def random_inputs(
    net: PolicyNet, contract: PolicyContract, sizes: Sizes, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """Random pictures, states, words and past; some cameras, words and earlier moments are absent."""
    batch, cameras, size = sizes.batch, len(contract.camera_roles), contract.image_size
    vocabulary = [w for w in contract.instruction.get("vocabulary", ()) if not w.startswith("<")]
    words = vocabulary or ["pick", "it", "up"]
    counts = torch.randint(1, min(sizes.words, 12) + 1, (batch,), generator=generator).tolist()
    picks = [torch.randint(len(words), (n,), generator=generator).tolist() for n in counts]
    tokens = net.backbone.tokenize([" ".join(words[i] for i in row) for row in picks])  # type: ignore[operator]
    ids, mask = pad_words(torch.as_tensor(tokens.ids), torch.as_tensor(tokens.mask), sizes.words)
    seen = torch.rand(batch, cameras, generator=generator) < 0.8
    seen[:, 0] = True
    past = None if net.history is None else Past.random(batch, net.history.length, generator)
    return (
        torch.randint(256, (batch, cameras, size, size, 3), generator=generator).to(torch.uint8),
        seen,
        ids,
        mask,
        torch.randint(len(contract.embodiments), (batch,), generator=generator),
        torch.randn(batch, spaces.STATE_DIM, generator=generator),
        torch.ones(batch, spaces.STATE_DIM, dtype=torch.bool),
        *((past.state, past.action, past.there) if past is not None else ()),
    )


def pad_words(ids_BL: Tensor, mask_BL: Tensor, words: int) -> tuple[Tensor, Tensor]:
    """To the exported number of words; a longer instruction raises :class:`ConfigError`."""
    more = words - ids_BL.shape[1]
    if more < 0:
        raise ConfigError(
            f"An instruction of {ids_BL.shape[1]} tokens does not fit the export, made for {words}. "
            "Export again with a larger --words."
        )
    return F.pad(ids_BL, (0, more)), F.pad(mask_BL, (0, more))


@torch.no_grad()
def exact_actions(
    net: PolicyNet, head: str, num_steps: int, inputs: tuple[Tensor, ...], noise_BHA: Tensor
) -> tuple[Tensor, Tensor]:
    """Actions [B H A] and location [B 2 3] by the stock network and the reference formulas, in float64."""
    from vla.kernels.parity import Case, exact  # which lists exports among the ways to run a head

    net = copy.deepcopy(net).double()
    given = policy_inputs([value.double() if value.is_floating_point() else value for value in inputs])
    seen = net.encode(given)
    prefix = PrefixFeatures(seen.prefix.features, seen.prefix.mask)
    case = Case("", prefix, net.told(seen, given), noise_BHA.double())
    actions = exact(exportable(net, head), case, num_steps)
    return actions, seen.location_dm
