"""Real-time chunking: a chunk that continues the one under way.

Black, Galliker, Levine 2025, "Real-Time Execution of Action Chunking Flow Policies", arXiv:2506.07339.
While the next chunk is computed, the first d actions that it covers are executed from the last one. So they
are frozen, and the rest is filled in, as a picture is around what is known of it. With ``x = alpha a + sigma
noise`` at a time of the sampler, ``a(x)`` the head's estimate of the clean chunk, ``Y`` the last chunk and
``W`` in 0..1 how much it counts at each action, every step

1. puts the frozen actions in their place, ``x = alpha Y + sigma x_0`` where W = 1 (x_0: the start),
2. draws the estimate towards the last chunk by the gradient of how well it agrees (pseudoinverse guidance,
   Song et al. 2023; equations 2 to 4 of the paper), ``a <- a + k (da/dx)^T W (Y - a)``, with
   ``k = min((alpha^2 + sigma^2) / alpha, beta sigma, 1 / gain)`` and beta = 5,
3. takes the sampler's own step with it.

In the flow's terms (alpha = t, sigma = 1 - t) that is the paper's ``v + min(beta, (1 - t) / (t r^2))
(da/dx)^T W (Y - a)`` with ``r^2 = (1 - t)^2 / (t^2 + (1 - t)^2)``. Two things are added: step 1, which with a
last one at the end makes the frozen actions exactly those of Y (guidance alone comes near them), and the
bound by ``gain``, how far the step moves x when a moves by one: few steps are long, none shall overshoot Y.

Shapes: B batch, H horizon, A active action entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: Largest weight of the guidance (Black et al. 2025, section 3.2: stable with few denoising steps).
BETA = 5.0


@dataclass(frozen=True, eq=False)
class Continuation:
    """What a chunk shall continue: normalised actions [B H A] and how much each counts, [B H] in 0..1 (1:
    frozen).
    """

    actions: Tensor
    weight: Tensor

    @property
    def frozen(self) -> Tensor:
        """bool [B H 1]."""
        return self.weight[..., None] >= 1

    def clone(self) -> Continuation:
        return Continuation(self.actions.clone(), self.weight.clone())


def soft_mask(horizon: int, known: int, frozen: int) -> np.ndarray:
    """float32 [horizon]: 1 for frozen actions, falling towards the last known one, 0 behind it.

    Equation 5 of the paper, with ``known`` = H - s: ``c (e^c - 1) / (e - 1)``, ``c = (known - i) / (known -
    frozen + 1)``.
    """
    i = np.arange(horizon)
    c = (known - i) / (known - frozen + 1)
    soft = np.where(i < known, c * np.expm1(c) / math.expm1(1), 0.0)
    return np.where(i < frozen, 1.0, soft).astype(np.float32)


def drawn(
    estimate: Callable[[Tensor], Tensor],
    x: Tensor,
    plan: Continuation,
    weights: tuple[float, float],
    gain: float,
) -> Tensor:
    """Step 2 of the module's text: the clean chunk [B H A] at ``x``, drawn towards the plan.

    Args:
        weights: alpha and sigma.
        gain: how far the sampler's step moves x when the estimate moves by one.
    """
    alpha, sigma = weights
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        made = estimate(x)
        error = (plan.weight[..., None] * (plan.actions - made)).detach()
        (pull,) = torch.autograd.grad(made, x, error)
    full = (alpha**2 + sigma**2) / alpha if alpha > 0 else math.inf
    return made.detach() + min(full, BETA * sigma, 1 / gain) * pull
