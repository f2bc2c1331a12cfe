"""What a chunk costs at least: FLOPs, bytes and dependent phases of each stage against a machine's peaks.

    limit of a stage = repeats * max(FLOPs / peak, bytes / bandwidth)

Weights count as read in every repeat unless they fit in 80 % of the last-level cache; embedding tables are
looked up, not read. The limit says what no implementation can beat, not what one reaches; beside it stands
what the launches of a fused CUDA graph would add (phases times :data:`NODE_S`). Nothing here is a
measurement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vla.errors import ConfigError, UnknownNameError

#: Launch and drain of one node of a CUDA graph of fused kernels: between 1.7 us (plain) and 2.3 us.
NODE_S = 2.3e-6
RESIDENT = 0.8  # of the cache that weights may fill and still be there in the next repeat


@dataclass(frozen=True)
class Machine:
    """Peaks. ``flops``: dense products a second by bits of a weight (fp32 sums); bandwidth in bytes/s."""

    name: str
    flops: Mapping[int, float]
    bandwidth: float
    cache: float
    note: str = "vendor's figures"


def _gpu(name: str, tflops: float, gbytes_s: float, cache_mb: float) -> Machine:
    return Machine(name, {16: tflops * 1e12, 8: 2 * tflops * 1e12}, gbytes_s * 1e9, cache_mb * 1e6)


#: bf16 dense with fp32 accumulation, memory bandwidth and L2, from NVIDIA's data sheets and white papers.
MACHINES = {
    "h100": _gpu("H100 SXM", 989, 3350, 50),
    "4090": _gpu("RTX 4090", 165, 1008, 72),
    "5090": _gpu("RTX 5090", 210, 1792, 96),
    "thor": _gpu("Jetson Thor", 258, 273, 32),
    "orin": _gpu("AGX Orin 64 GB", 42.5, 205, 4),
    "orin-nano": _gpu("Orin Nano Super", 16.7, 102, 2),
}


def machine(name: str) -> Machine:
    """A machine by name; ``cpu`` is measured on the spot by :mod:`vla.kernels.machine`."""
    if name not in MACHINES:
        raise UnknownNameError("machine", name, [*MACHINES, "cpu"])
    return MACHINES[name]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Part of a chunk's work.

    Args:
        flops: of one repeat; a multiplication and an addition count as two.
        weights: numbers read in one repeat, of as many bits as asked for.
        packed: bytes read in one repeat besides, of weights that are stored in 4 bits whatever is asked for.
        repeats: 1 for what happens once, the number of steps for a denoising loop.
        phases: kernels of one repeat that wait for one another, if fused as well as this package knows how.
        action: belongs to the action loop.
    """

    name: str
    flops: float
    weights: float
    packed: float = 0.0
    repeats: int = 1
    phases: int = 0
    action: bool = False


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Seconds that one stage needs at least on one machine, and what it is bound by."""

    stage: Stage
    seconds: float
    bound: str
    launches_s: float


def limit(stage: Stage, on: Machine, bits: int) -> Limit:
    """The bound of a stage with weights of ``bits`` bits (4-bit ones are multiplied as those, which is how
    bitsandbytes does it); :class:`ConfigError` where there is no peak.
    """
    if bits not in on.flops:
        raise ConfigError(f"{on.name} has no peak for {bits}-bit weights; it has {sorted(on.flops)}.")
    size = stage.weights * bits / 8 + stage.packed
    resident = size <= RESIDENT * on.cache
    compute = stage.repeats * stage.flops / on.flops[bits]
    memory = (1 if resident else stage.repeats) * size / on.bandwidth
    return Limit(
        stage=stage,
        seconds=max(compute, memory),
        bound="compute" if compute >= memory else "memory",
        launches_s=stage.repeats * stage.phases * NODE_S,
    )


@dataclass(frozen=True)
class Model:
    """Stages of one chunk."""

    name: str
    stages: tuple[Stage, ...]
    note: str = ""

    @property
    def flops(self) -> float:
        return sum(stage.flops * stage.repeats for stage in self.stages)

    def limits(self, on: Machine, bits: int) -> list[Limit]:
        return [limit(stage, on, bits) for stage in self.stages]


def total_s(limits: Iterable[Limit], action: bool | None = None) -> float:
    """Sum of the limits; of the action loop, or of what is not, alone if asked."""
    return sum(item.seconds for item in limits if action is None or item.stage.action == action)


def fraction(limits: Iterable[Limit], measured_s: float) -> float:
    """Share of the limit that a measured time reaches: 1 cannot be beaten."""
    if measured_s <= 0:
        raise ConfigError(f"A measured time is positive, not {measured_s} s.")
    return total_s(limits) / measured_s


@dataclass(frozen=True, kw_only=True)
class Transformer:
    """Sizes of a stack of blocks: per layer query, key-value and output projections and an MLP.

    Args:
        gated: the MLP has three matrices instead of two.
        head_dim: of each head; None: width / heads.
        cross_layers: layers that read another stack's keys and values, of ``cross_width`` entries a token,
        and
            none of their own.
    """

    layers: int
    width: int
    feed: int
    heads: int
    key_value_heads: int
    gated: bool
    head_dim: int | None = None
    cross_layers: int = 0
    cross_width: int = 0

    @property
    def inner(self) -> int:
        return self.heads * (self.head_dim or self.width // self.heads)

    @property
    def weights(self) -> float:
        values = self.key_value_heads * (self.inner // self.heads)
        plain = 2 * self.width * self.inner + (3 if self.gated else 2) * self.width * self.feed
        own, cross = 2 * self.width * values, 2 * self.cross_width * values
        return self.layers * plain + (self.layers - self.cross_layers) * own + self.cross_layers * cross

    def flops(self, tokens: int, others: int = 0) -> float:
        """Of ``tokens`` tokens that read themselves and ``others`` (cross layers: only those)."""
        read = (self.layers - self.cross_layers) * (tokens + others) + self.cross_layers * others
        return 2 * self.weights * tokens + 4 * tokens * read * self.inner


_VISION_PHASES, _LANGUAGE_PHASES, _EXPERT_PHASES = 5, 5, 5  # norm+qkv, attention, output, norm+MLP, down


def smolvla(views: int = 2, steps: int = 10, chunk: int = 50, words: int = 48) -> Model:
    """SmolVLA-450M as it runs (arXiv:2506.01844): 16 language layers, SigLIP-B/16, 512 px to 64 tokens."""
    vision = Transformer(layers=12, width=768, feed=3072, heads=12, key_value_heads=12, gated=False)
    language = Transformer(layers=16, width=960, feed=2560, heads=15, key_value_heads=5, gated=True)
    expert = Transformer(
        layers=16, width=720, feed=2048, heads=15, key_value_heads=5, gated=True, head_dim=64,
        cross_layers=8, cross_width=320,
    )  # fmt: skip
    patches, tokens = 1024, 64 * views + words + 1
    embed, connect = 3 * 16 * 16 * 768, 16 * 768 * 960
    ends = 2 * 32 * 720 + 3 * 720 * 720  # action in and out, time MLP
    seen = views * (vision.flops(patches) + 2 * embed * patches + 2 * connect * 64)
    return Model(
        "SmolVLA-450M",
        (
            Stage(
                name=f"vision, {views} views", flops=seen,
                weights=vision.weights + embed + 768 * patches + connect, phases=12 * _VISION_PHASES,
            ),
            Stage(
                name="language", flops=language.flops(tokens), weights=language.weights,
                phases=16 * _LANGUAGE_PHASES,
            ),
            Stage(
                name="action expert", flops=expert.flops(chunk, tokens) + 2 * ends * chunk,
                weights=expert.weights + ends, repeats=steps, phases=16 * _EXPERT_PHASES + 1, action=True,
            ),
        ),
        f"{tokens} prefix tokens, chunk {chunk}, {steps} steps",
    )  # fmt: skip


def pi0(views: int = 2, steps: int = 10, chunk: int = 50, words: int = 20) -> Model:
    """pi0 (arXiv:2410.24164): SigLIP-So400m at 224 px, Gemma 2B, an expert of 311 M."""
    vision = Transformer(layers=27, width=1152, feed=4304, heads=16, key_value_heads=16, gated=False)
    language = Transformer(
        layers=18, width=2048, feed=16384, heads=8, key_value_heads=1, gated=True, head_dim=256
    )
    expert = Transformer(
        layers=18, width=1024, feed=4096, heads=8, key_value_heads=1, gated=True, head_dim=256
    )
    tokens, connect = 256 * views + words, 1152 * 2048
    return Model(
        "pi0",
        (
            Stage(
                name=f"vision, {views} views", flops=views * (vision.flops(256) + 2 * connect * 256),
                weights=vision.weights + connect, phases=27 * _VISION_PHASES,
            ),
            Stage(
                name="language", flops=language.flops(tokens), weights=language.weights,
                phases=18 * _LANGUAGE_PHASES,
            ),
            Stage(
                name="action expert", flops=expert.flops(chunk + 1, tokens), weights=expert.weights,
                repeats=steps, phases=18 * _EXPERT_PHASES + 1, action=True,
            ),
        ),
        f"{tokens} prefix tokens, chunk {chunk}, {steps} steps",
    )  # fmt: skip


#: Models by name.
KNOWN = {"smolvla": smolvla, "pi0": pi0}
