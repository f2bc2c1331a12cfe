"""SmolVLA, pi0 and pi0.5 once more, in float64 and as plainly as possible: no cache, all tokens every step.

Written from what lerobot's code does (one joint forward over prefix and chunk with one big mask), to check
the prefix and step graphs against. Takes the checkpoint's tensors by their names.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)


def vision(w: Weights, name: str, images: Tensor, heads: int) -> Tensor:
    patch = w[f"{name}.embeddings.patch_embedding.weight"]
    x = F.conv2d(images, patch, w[f"{name}.embeddings.patch_embedding.bias"], stride=patch.shape[-1])
    x = x.flatten(2).transpose(1, 2) + w[f"{name}.embeddings.position_embedding.weight"]
    for i in range(2):
        at = f"{name}.encoder.layers.{i}"
        y = layer_norm(w, f"{at}.layer_norm1", x)
        q, k, v = (
            linear(w, f"{at}.self_attn.{p}_proj", y).unflatten(-1, (heads, -1)).transpose(1, 2) for p in "qkv"
        )
        seen = ((q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = x + linear(w, f"{at}.self_attn.out_proj", seen.transpose(1, 2).flatten(2))
        y = F.gelu(linear(w, f"{at}.mlp.fc1", layer_norm(w, f"{at}.layer_norm2", x)), approximate="tanh")
        x = x + linear(w, f"{at}.mlp.fc2", y)
    return layer_norm(w, f"{name}.post_layernorm", x)


def rope(x_BLHd: Tensor, positions_BL: Tensor) -> Tensor:
    half = x_BLHd.shape[-1] // 2
    angle = positions_BL[..., None, None] / 10_000 ** (torch.arange(half).double() / half)
    a, b = x_BLHd[..., :half], x_BLHd[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def attention(q_BLHd: Tensor, k_BSKd: Tensor, v_BSKd: Tensor, mask_BLS: Tensor) -> Tensor:
    groups = q_BLHd.shape[2] // k_BSKd.shape[2]
    k, v = k_BSKd.repeat_interleave(groups, 2), v_BSKd.repeat_interleave(groups, 2)
    score = torch.einsum("blhd,bshd->bhls", q_BLHd, k) / math.sqrt(q_BLHd.shape[-1])
    score = score.masked_fill(~mask_BLS[:, None], -1e30)
    return torch.einsum("bhls,bshd->blhd", score.softmax(-1), v).flatten(2)


def rms(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def sinusoids(time_B: Tensor, width: int) -> Tensor:
    period = 4e-3 * 1000 ** torch.linspace(0, 1, width // 2, dtype=torch.float64)
    angle = time_B[:, None].double() * (2 * math.pi / period)
    return torch.cat([angle.sin(), angle.cos()], 1)


def blocks_mask(there_BL: Tensor, starts_L: Tensor) -> Tensor:
    """A token reads valid tokens of its own block and earlier ones."""
    block = starts_L.cumsum(0)
    return (block[None, :] <= block[:, None])[None] & there_BL[:, None, :]


def velocity(kind: str, w: Weights, inputs: Any, x_BTA: Tensor, time_B: Tensor) -> Tensor:
    w = {name.removeprefix("model."): value.double() for name, value in w.items()}
    run = smolvla if kind == "smolvla" else pi
    return run(w, inputs, x_BTA.double(), time_B, kind == "pi05")


def smolvla(w: Weights, inputs: Any, x_BTA: Tensor, time_B: Tensor, _: bool) -> Tensor:
    at = "vlm_with_expert.vlm.model"
    pictures = []
    for i in range(inputs.images.shape[1]):
        seen = vision(w, f"{at}.vision_model", inputs.images[:, i].double(), 4)
        side = math.isqrt(seen.shape[1])
        seen = seen.view(len(seen), side // 2, 2, side // 2, 2, -1).permute(0, 1, 3, 2, 4, 5).flatten(3)
        pictures.append(linear(w, f"{at}.connector.modality_projection.proj", seen.flatten(1, 2)))
    words = w[f"{at}.text_model.embed_tokens.weight"][inputs.token_ids]
    prefix = torch.cat([*pictures, words], 1) * math.sqrt(words.shape[-1])
    prefix = torch.cat([prefix, linear(w, "state_proj", inputs.state.double())[:, None]], 1)
    time = sinusoids(time_B, 48)[:, None].expand(-1, x_BTA.shape[1], -1)
    mixed = torch.cat([linear(w, "action_in_proj", x_BTA), time], -1)
    chunk = linear(w, "action_time_mlp_out", F.silu(linear(w, "action_time_mlp_in", mixed)))
    there, starts = _layout(inputs, prefix.shape[1] - 1, 1 + x_BTA.shape[1])
    mask, places = blocks_mask(there, starts), there.cumsum(1) - 1
    size = prefix.shape[1]
    streams = [(f"{at}.text_model", prefix), ("vlm_with_expert.lm_expert", chunk)]
    for i in range(4):
        names = [f"{name}.layers.{i}" for name, _ in streams]
        normal = [
            rms(x, 1e-5) * w[f"{n}.input_layernorm.weight"] for n, (_, x) in zip(names, streams, strict=True)
        ]
        q, k, v = (
            [_heads(w, n, p, y, 16) for n, y in zip(names, normal, strict=True) if _fits(w, n, p, y)]
            for p in "qkv"
        )
        if i % 2 == 0:
            turned = [rope(torch.cat(parts, 1), places) for parts in (q, k)]
            out = attention(*turned, torch.cat(v, 1), mask)
            seen = [out[:, :size], out[:, size:]]
        else:
            k0 = rope(k[0], places[:, :size])
            first = attention(rope(q[0], places[:, :size]), k0, v[0], mask[:, :size, :size])
            own = [
                linear(w, f"{names[1]}.self_attn.{p}_proj", y.flatten(2)).unflatten(-1, (-1, 16))
                for p, y in (("k", k0), ("v", v[0]))
            ]
            begin = torch.arange(x_BTA.shape[1])[None].expand(len(x_BTA), -1)
            seen = [first, attention(rope(q[1], begin), *own, mask[:, size:, :size])]
        streams = [
            (name, _after(w, n, x, y, lambda n, x: rms(x, 1e-5) * w[f"{n}.weight"], F.silu))
            for n, (name, x), y in zip(names, streams, seen, strict=True)
        ]
    out = rms(streams[1][1], 1e-5) * w["vlm_with_expert.lm_expert.norm.weight"]
    return linear(w, "action_out_proj", out)


def pi(w: Weights, inputs: Any, x_BTA: Tensor, time_B: Tensor, adaptive: bool) -> Tensor:
    at, expert = "paligemma_with_expert.paligemma.model", "paligemma_with_expert.gemma_expert.model"
    pictures = [
        linear(
            w,
            f"{at}.multi_modal_projector.linear",
            vision(w, f"{at}.vision_tower.vision_model", inputs.images[:, i].double(), 4),
        )
        for i in range(inputs.images.shape[1])
    ]
    words = w[f"{at}.language_model.embed_tokens.weight"][inputs.token_ids]
    prefix = torch.cat([*pictures, words * math.sqrt(words.shape[-1])], 1)
    time = sinusoids(time_B, 48)
    chunk, condition, extra = linear(w, "action_in_proj", x_BTA), None, 0
    if adaptive:
        condition = F.silu(linear(w, "time_mlp_out", F.silu(linear(w, "time_mlp_in", time))))
    else:
        mixed = torch.cat([chunk, time[:, None].expand(-1, x_BTA.shape[1], -1)], -1)
        chunk = linear(w, "action_time_mlp_out", F.silu(linear(w, "action_time_mlp_in", mixed)))
        chunk = torch.cat([linear(w, "state_proj", inputs.state.double())[:, None], chunk], 1)
        extra = 1
    there, starts = _layout(inputs, prefix.shape[1], chunk.shape[1])
    starts[prefix.shape[1] + extra + 1 :] = 0  # the chunk's tokens see one another
    mask, places = blocks_mask(there, starts), there.cumsum(1) - 1
    size = prefix.shape[1]

    def norm(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        if f"{name}.dense.weight" not in w:
            return rms(x, 1e-6) * (1 + w[f"{name}.weight"]), torch.ones(())
        assert condition is not None
        scale, shift, gate = linear(w, f"{name}.dense", condition)[:, None].chunk(3, -1)
        return rms(x, 1e-6) * (1 + scale) + shift, gate

    for i in range(3):
        names = [f"{at}.language_model.layers.{i}", f"{expert}.layers.{i}"]
        streams = [prefix, chunk]
        normal = [norm(f"{n}.input_layernorm", x) for n, x in zip(names, streams, strict=True)]
        q, k, v = (
            torch.cat([_heads(w, n, p, y, 8) for n, (y, _) in zip(names, normal, strict=True)], 1)
            for p in "qkv"
        )
        out = attention(rope(q, places), rope(k, places), v, mask)
        done = []
        for n, x, y, (_, gate) in zip(names, streams, (out[:, :size], out[:, size:]), normal, strict=True):
            after = x + linear(w, f"{n}.self_attn.o_proj", y) * gate
            normed, last = norm(f"{n}.post_attention_layernorm", after)
            up = F.gelu(linear(w, f"{n}.mlp.gate_proj", normed), approximate="tanh")
            up = up * linear(w, f"{n}.mlp.up_proj", normed)
            done.append(after + linear(w, f"{n}.mlp.down_proj", up) * last)
        prefix, chunk = done
    return linear(w, "action_out_proj", norm(f"{expert}.norm", chunk)[0][:, extra:])


def _layout(inputs: Any, prefix: int, rest: int) -> tuple[Tensor, Tensor]:
    """Which tokens are there, and where a block begins: every token after the first ``prefix`` ones."""
    batch = len(inputs.state)
    pictures = (prefix - inputs.token_ids.shape[1]) // inputs.images.shape[1]
    seen = inputs.image_mask.repeat_interleave(pictures, 1)
    there = torch.cat([seen, inputs.token_mask, torch.ones(batch, rest, dtype=torch.bool)], 1)
    starts = torch.cat([torch.zeros(prefix, dtype=torch.long), torch.ones(rest, dtype=torch.long)])
    return there, starts


def _heads(w: Weights, name: str, which: str, x: Tensor, size: int) -> Tensor:
    return linear(w, f"{name}.self_attn.{which}_proj", x).unflatten(-1, (-1, size))


def _fits(w: Weights, name: str, which: str, x: Tensor) -> bool:
    """False for the key and value projections that read another stream's keys and values."""
    return w[f"{name}.self_attn.{which}_proj.weight"].shape[1] == x.shape[-1]


def _after(w: Weights, name: str, x: Tensor, seen: Tensor, norm: Any, act: Any) -> Tensor:
    x = x + linear(w, f"{name}.self_attn.o_proj", seen)
    y = norm(f"{name}.post_attention_layernorm", x)
    up = act(linear(w, f"{name}.mlp.gate_proj", y)) * linear(w, f"{name}.mlp.up_proj", y)
    return x + linear(w, f"{name}.mlp.down_proj", up)


def sample(kind: str, w: Weights, inputs: Any, noise: Tensor, num_steps: int = 10) -> Tensor:
    x = noise.double()
    for i in range(num_steps):
        time = torch.full((len(noise),), 1.0 - i / num_steps).float()
        x = x - velocity(kind, w, inputs, x, time) / num_steps
    return x


def loss(kind: str, w: Weights, inputs: Any, actions: Tensor, noise: Tensor, time_B: Tensor) -> Tensor:
    padded = F.pad(actions, (0, noise.shape[-1] - actions.shape[-1])).double()
    t = time_B[:, None, None].double()
    v = velocity(kind, w, inputs, t * noise + (1 - t) * padded, time_B)
    return (noise - padded - v)[..., : actions.shape[-1]].square().mean()
