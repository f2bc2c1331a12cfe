"""What one step of training sees: windows of any arms side by side, in slots, with masks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One batch; B windows, C camera roles, H horizon, all numpy.

    Args:
        images: uint8 [B C h w 3]; image_mask: bool [B C], false where the arm has no such camera.
        state: float32 [B STATE_DIM], normalised, in slots; state_mask: bool of the same shape.
        actions: float32 [B H ACTION_DIM], normalised, in slots; past the episode's end it holds still.
        action_mask: bool [B H ACTION_DIM]; false in unused slots, past the episode's end and after
            the first perturbed step (later labels answer a state this window does not lead to).
        aux: key -> float32 [B k], NaN where unknown.
        other_instructions: what else the scene could be asked for, matching ``aux["other_..."]``; empty
            where unknown.
        things: names of what ``aux["..._things_uv"]`` shows; none where unknown.
        tcp_position: float32 [B 3], m, world, not normalised; NaN where the arm has no such field.
        past_state: float32 [B K STATE_DIM], past_action: float32 [B K ACTION_DIM], past_there: bool [B K]:
            state and label of the K earlier moments, newest first; zeros where the episode had not begun.
        index: int64 [B 2]: episode and step.
        sources: int64 [B]: place of the source among the dataset's.
    """

    images: np.ndarray
    image_mask: np.ndarray
    state: np.ndarray
    state_mask: np.ndarray
    instructions: list[str]
    embodiments: list[str]
    actions: np.ndarray
    action_mask: np.ndarray
    aux: dict[str, np.ndarray]
    other_instructions: list[str]
    things: list[tuple[str, ...]]
    tcp_position: np.ndarray
    past_state: np.ndarray
    past_action: np.ndarray
    past_there: np.ndarray
    index: np.ndarray
    sources: np.ndarray
