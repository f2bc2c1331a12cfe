"""Example episodes for a policy that reads them (``vla.models.backbones.in_context``): from what a robot
recorded to what the backbone is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from vla.contract import PolicyContract
from vla.embodiment import Embodiment
from vla.errors import ConfigError, ObservationError, UnknownNameError
from vla.models.backbones.in_context import Demonstrations, InContextBackbone
from vla.models.policy_net import PolicyNet
from vla.transforms import actions_in_slots, stack_images, state_in_slots
from vla.types import Episode


def example_steps(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` steps spread over an episode, int64 [count], and which of them there are, bool [count]."""
    steps = np.unique(np.linspace(0, length - 1, min(count, length)).round().astype(np.int64))
    there = np.arange(count) < len(steps)
    return np.concatenate([steps, np.zeros(count - len(steps), np.int64)]), there


def show_examples(net: PolicyNet, contract: PolicyContract, episodes: Sequence[Episode]) -> None:
    """Let a policy read example episodes, for every call that follows; none: forget those it was shown.

    Args:
        net, contract: of the policy; its ``backbone`` is ``in_context``.
        episodes: of arms that the policy knows, such as recorded demonstrations of what it shall do next.

    Raises:
        ConfigError: the policy was not trained to read examples.
        ObservationError: more episodes than it can read, or one without steps.
        UnknownNameError: an arm that it does not know.
    """
    backbone = net.backbone
    if not isinstance(backbone, InContextBackbone):
        raise ConfigError(
            f"This policy (backbone {net.config.backbone!r}) does not read examples: train one with "
            "model.examples set."
        )
    if not episodes:
        backbone.show(None)
        return
    with torch.no_grad():
        backbone.show(read_examples(net, contract, episodes))


def read_examples(net: PolicyNet, contract: PolicyContract, episodes: Sequence[Episode]) -> Demonstrations:
    """One set of examples, the same for every sample (B is 1); see :func:`show_examples`."""
    assert isinstance(net.backbone, InContextBackbone)
    settings = net.backbone.config
    if len(episodes) > settings.num_episodes or not all(episode.steps for episode in episodes):
        raise ObservationError(
            f"This policy reads at most {settings.num_episodes} example episodes of one step or more; given "
            f"were {[len(episode.steps) for episode in episodes]} steps."
        )
    normalizer, names = contract.normalizer(), sorted(contract.embodiments)
    state_index, action_index = (list(i) for i in (net.config.state_index, net.config.action_index))
    images, cameras, states, actions, there = [], [], [], [], []
    for episode in episodes:
        arm = _arm(contract, episode.embodiment)
        steps, known = example_steps(len(episode.steps), settings.num_steps)
        there.append(known)
        for step in (episode.steps[i] for i in steps):
            seen, which = stack_images(step.observation, arm, contract.camera_roles, contract.image_size)
            state, mask = state_in_slots(step.observation, arm, normalizer)
            images.append(seen)
            cameras.append(which)
            states.append((state * mask)[state_index])
            actions.append(actions_in_slots(step.action[None], arm, normalizer)[0][0, action_index])
    tokens = net.backbone.tokenize([episode.instruction for episode in episodes])
    ids = [names.index(episode.embodiment) for episode in episodes]
    return demonstrations(
        images=np.stack(images),
        image_mask=np.stack(cameras),
        token_ids=tokens.ids,
        token_mask=tokens.mask,
        embodiment_id=np.array(ids, np.int64),
        state=np.stack(states).astype(np.float32),
        action=np.stack(actions).astype(np.float32),
        step_mask=np.stack(there)[None],
        device=next(net.parameters()).device,
    )


def demonstrations(*, step_mask: np.ndarray, device: torch.device, **values: Any) -> Demonstrations:
    """Arrays of the steps or episodes after each other -> tensors of the shapes that ``Demonstrations`` has.

    ``step_mask`` bool [B K F] says how many of each there are.
    """
    batch, episodes, steps = step_mask.shape
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)).to(device) for name, v in values.items()}
    for name, value in tensors.items():
        by_episode = name in ("token_ids", "token_mask", "embodiment_id")
        shape = (batch, episodes) if by_episode else (batch, episodes, steps)
        tensors[name] = value.unflatten(0, shape)
    return Demonstrations(step_mask=torch.from_numpy(step_mask).to(device), **tensors)


def _arm(contract: PolicyContract, name: str) -> Embodiment:
    if name not in contract.embodiments:
        raise UnknownNameError("embodiment of this policy", name, contract.embodiments)
    return contract.embodiments[name]
