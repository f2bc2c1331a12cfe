"""Seasons: a number draws layouts, colours, objects and wordings that no other season has.

The public suite has no season; its scenes never change. ``Season.parse(7)`` is a *training* season,
``Season.parse(1007)`` an *evaluation* season (from ``FIRST_EVALUATION`` on). ``"1007+unseen"`` is the same
with nothing on the table but (colour, kind) pairs that neither the public suite nor any training season
shows.

* layouts: the generators of scene, start pose and words are seeded with the season's number as well;
* colours: a scene draws the names for each kind from those that training knows (the public four and two of
  ``SEASON_COLORS``), or from the other four of these for ``+unseen``; each name has the season's own shade;
* objects: cubes, cylinders and bottles have the season's own size, cubes and cylinders a white mark on top;
* wordings: sentences built by :mod:`vla_envs.tabletop.wordings`. Public, training and evaluation sentences
  are disjoint; two seasons of one sort may share some.
"""

from __future__ import annotations

import colorsys
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vla.errors import EnvError
from vla.interfaces import TRAIN_SEED, Wording
from vla_envs.tabletop.names import ALL_COLORS, COLORS, SEASON_COLORS
from vla_envs.tabletop.objects import FREE_KINDS, Entity, Mark
from vla_envs.tabletop.tasks.base import Layout
from vla_envs.tabletop.wordings import season_templates

FIRST_EVALUATION = 1000
UNSEEN = "unseen"
_SCALE = {"cube": (0.90, 1.05), "cylinder": (0.88, 1.10), "bottle": (0.92, 1.08)}
_MARKS: tuple[Mark, ...] = ("none", "dot", "bar", "frame")
_NUM_KEPT = 2  # of SEASON_COLORS that training seasons show on a kind
_SALT = 20_260
_TRIES = 50


@dataclass(frozen=True, kw_only=True)
class Season:
    """What one season number stands for; see the module."""

    number: int
    unseen: bool = False

    def __post_init__(self) -> None:
        if self.number < 0:
            raise EnvError(f"Season {self.number}: expected a number from 0.")
        if self.unseen and self.trainable:
            raise EnvError(
                f"Season {self} is one for training, which shows nothing unseen. "
                f"Evaluation seasons start at {FIRST_EVALUATION}: {FIRST_EVALUATION + self.number}+{UNSEEN}."
            )

    @classmethod
    def parse(cls, text: int | str) -> Season:
        """From ``7``, ``"1007"`` or ``"1007+unseen"``."""
        number, plus, option = str(text).partition("+")
        if not number.isdecimal() or (plus and option != UNSEEN):
            raise EnvError(f"Season {text!r}: expected a number such as 7 or 1007, or 1007+{UNSEEN}.")
        return cls(number=int(number), unseen=bool(plus))

    def __str__(self) -> str:
        return f"{self.number}+{UNSEEN}" if self.unseen else str(self.number)

    @property
    def trainable(self) -> bool:
        """Whether demonstrations may be made in it."""
        return self.number < FIRST_EVALUATION

    def check_seed(self, seed: int) -> None:
        """Raises for a seed of demonstrations in a season that is for evaluation."""
        if seed >= TRAIN_SEED and not self.trainable:
            raise EnvError(
                f"Seed {seed} is one for demonstrations (from {TRAIN_SEED} on) and season {self} is for "
                f"evaluation: demonstrations are made in seasons below {FIRST_EVALUATION}."
            )

    def generator(self, seed: int, stream: int) -> np.random.Generator:
        """The generator of one stream (scene, words ...) of a scene."""
        return np.random.default_rng([seed, stream, _SALT, self.number, int(self.unseen)])

    @cached_property
    def colors(self) -> Mapping[str, tuple[float, float, float]]:
        """The season's shade of every colour, by name; RGB in 0..1."""
        rng = self._rng("shades")
        shades = {}
        for name, rgb in ALL_COLORS.items():
            hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
            hue += rng.uniform(-0.012, 0.012)
            saturation *= rng.uniform(0.88, 1.0)
            value *= rng.uniform(0.88, 1.04)
            shades[name] = colorsys.hsv_to_rgb(hue % 1.0, saturation, min(value, 1.0))
        return shades

    @cached_property
    def _sizes(self) -> Mapping[str, float]:
        rng = self._rng("sizes")
        return {kind: float(rng.uniform(*limits)) for kind, limits in _SCALE.items()}

    @cached_property
    def _marks(self) -> Mapping[str, Mark]:
        rng = self._rng("marks")
        return {kind: _MARKS[int(rng.integers(len(_MARKS)))] for kind in ("cube", "cylinder")}

    @cached_property
    def templates(self) -> Mapping[str, Mapping[Wording, tuple[str, ...]]]:
        """What people say this season, as ``instructions.TEMPLATES``."""
        return season_templates(self._rng("wordings"), evaluation=not self.trainable)

    def reshape(self, pool: Sequence[Entity]) -> tuple[Entity, ...]:
        """The same entities in this season's sizes and with its marks."""
        return tuple(
            dataclasses.replace(
                entity,
                size=entity.size * self._sizes.get(entity.kind, 1.0),
                mark=self._marks.get(entity.kind, "none"),
            )
            for entity in pool
        )

    def redraw(
        self, layout: Layout, before: Sequence[Entity], after: Sequence[Entity], rng: np.random.Generator
    ) -> Layout:
        """The same layout in this season's colours, with free things at the height of their new size.

        Things of one kind that differ in colour still do.
        """
        kinds = {entity.name: entity.kind for entity in before}
        heights = {
            old.name: new.half_height / old.half_height
            for old, new in zip(before, after, strict=True)
            if old.kind in FREE_KINDS
        }
        placements = {
            name: dataclasses.replace(p, position=(*p.position[:2], p.position[2] * heights.get(name, 1.0)))
            for name, p in layout.placements.items()
        }
        colors = _recolor(layout.colors, kinds, self.unseen, rng)
        return dataclasses.replace(layout, placements=placements, colors=colors)

    def _rng(self, what: str) -> np.random.Generator:
        """A generator of the season's own; ``+unseen`` changes none of what these draw."""
        return np.random.default_rng([_SALT, self.number, *what.encode()])


def trained_colors(kind: str) -> tuple[str, ...]:
    """Colours that the public suite or training seasons show on things of a kind."""
    return (*COLORS, *_shuffled(kind)[:_NUM_KEPT])


def unseen_colors(kind: str) -> tuple[str, ...]:
    """Colours that only ``+unseen`` seasons show on things of a kind."""
    return tuple(_shuffled(kind)[_NUM_KEPT:])


def _shuffled(kind: str) -> list[str]:
    order = np.random.default_rng([_SALT, *kind.encode()]).permutation(len(SEASON_COLORS))
    return [list(SEASON_COLORS)[int(i)] for i in order]


def _recolor(
    colors: Mapping[str, str], kinds: Mapping[str, str], unseen: bool, rng: np.random.Generator
) -> dict[str, str]:
    """New names, one to one within a kind, and different across kinds where they were, if that can be."""
    pool = unseen_colors if unseen else trained_colors
    kind_of = {name: _painted_kind(name, kinds) for name in colors}
    drawn: dict[str, str] = {}
    for _ in range(_TRIES):
        mapped: dict[tuple[str, str], str] = {}
        for kind in dict.fromkeys(kind_of.values()):
            names = list(dict.fromkeys(c for n, c in colors.items() if kind_of[n] == kind))
            free = list(pool(kind))
            mapped.update(
                {(kind, c): free[int(i)] for c, i in zip(names, rng.permutation(len(free)), strict=False)}
            )
        drawn = {name: mapped[kind_of[name], color] for name, color in colors.items()}
        if all(drawn[a] != drawn[b] for a in colors for b in colors if colors[a] != colors[b]):
            break
    return drawn


def _painted_kind(name: str, kinds: Mapping[str, str]) -> str:
    """``cube0`` is a cube, ``cabinet/drawer0`` a drawer, ``dial1/handle`` a dial."""
    kind = kinds[name.split("/", maxsplit=1)[0]]
    return "drawer" if kind == "cabinet" else kind
