"""Saving and restoring a simulation exactly, the parts of the model that a reset changes included."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from vla.errors import EnvError

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
_MUTABLE = (
    *("body_pos", "body_quat", "body_gravcomp", "geom_rgba"),
    *("cam_pos", "cam_quat", "light_dir", "light_diffuse", "light_ambient"),
)


def save_physics(model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
    """Integration state and the model fields that vary between scenes, copied."""
    state = np.zeros(mujoco.mj_stateSize(model, _STATE))
    mujoco.mj_getState(model, data, state, _STATE)
    return {"state": state, **{name: getattr(model, name).copy() for name in _MUTABLE}}


def restore_physics(model: mujoco.MjModel, data: mujoco.MjData, saved: Mapping[str, np.ndarray]) -> None:
    """Inverse of :func:`save_physics`; raises :class:`EnvError` for a state of another scene."""
    size = mujoco.mj_stateSize(model, _STATE)
    if saved["state"].shape != (size,):
        raise EnvError(f"Saved state of {len(saved['state'])} numbers; this scene has {size}.")
    for name in _MUTABLE:
        getattr(model, name)[:] = saved[name]
    mujoco.mj_setState(model, data, saved["state"], _STATE)
    mujoco.mj_forward(model, data)
    mujoco.mj_setState(model, data, saved["state"], _STATE)  # mj_forward moved the solver's warm start
