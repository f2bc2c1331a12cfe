"""The sentences of a season: known verbs and nouns in orders, and with fillers, that the public suite lacks.

Every sentence is a core such as "pick the {target} up", with words of politeness before and after it. The
public sentences (:data:`vla_envs.tabletop.instructions.TEMPLATES`) are left out; of the others every second
one belongs to training seasons, the rest to evaluation seasons, and each season draws a few of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vla.interfaces import Wording
from vla_envs.tabletop.instructions import TEMPLATES

NUM_TRAIN, NUM_HELDOUT = 4, 3  # sentences for each verb that a season has
_FORMS = (
    "{}",
    "please {}",
    "now {}",
    "{} please",
    "{} now",
    "now please {}",
    "please {} now",
    "now {} please",
)
_PUT = ("put the {{target}} {0} the {{goal}}", "place the {{target}} {0} the {{goal}}",
        "move the {{target}} {0} the {{goal}}", "take the {{target}} and place it {0} the {{goal}}",
        "pick up the {{target}} and put it {0} the {{goal}}")  # fmt: skip
_TURN = ("turn the {{target}} {0}", "rotate the {{target}} {0}", "twist the {{target}} {0}",
         "take the {{target}} and turn it {0}")  # fmt: skip
_SLIDE = ("slide the {{target}} {0}", "move the {{target}} {0}", "push the {{target}} {0}",
          "slide the {{target}} to the {0}", "push the {{target}} over to the {0}",
          "take the {{target}} and move it to the {0}")  # fmt: skip


def _with(cores: tuple[str, ...], words: str) -> tuple[str, ...]:
    return tuple(core.format(words) for core in cores)


CORES: Mapping[str, tuple[str, ...]] = {
    "pick": ("pick up the {target}", "lift the {target}", "grab the {target}",
             "take the {target} and lift it", "lift the {target} up", "grab the {target} and pick it up"),
    "place": ("put the {target} {prep} the {goal}", "place the {target} {prep} the {goal}",
              "drop the {target} {prep} the {goal}", "move the {target} {prep} the {goal}",
              "grab the {target} and drop it {prep} the {goal}",
              "take the {target} and place it {prep} the {goal}"),
    "push": ("push the {target} to the {goal}", "slide the {target} to the {goal}",
             "push the {target} over to the {goal}", "slide the {target} over into the {goal}"),
    "stack": ("stack the {target} on the {goal}", "stack the {target} on top of the {goal}",
              "place the {target} on top of the {goal}", "take the {target} and put it on top of the {goal}",
              "grab the {target} and stack it on the {goal}"),
    "knock": ("knock over the {target}", "knock the {target} over", "tip over the {target}",
              "tip the {target} over"),
    "open": ("open the {target}", "pull the {target} open", "pull open the {target}"),
    "close": ("close the {target}", "shut the {target}", "push the {target} shut"),
    "press": ("press the {target}", "push down the {target}", "press the {target} down",
              "press down the {target}"),
    "clockwise": _with(_TURN, "clockwise"),
    "counterclockwise": _with(_TURN, "counterclockwise"),
    "slide_left": _with(_SLIDE, "left"),
    "slide_right": _with(_SLIDE, "right"),
    "insert": ("insert the {target} into the {goal}", "put the {target} into the {goal}",
               "put the {target} in the {goal}", "take the {target} and put it into the {goal}",
               "grab the {target} and insert it into the {goal}"),
    "left_of": _with(_PUT, "to the left of"),
    "right_of": _with(_PUT, "to the right of"),
    "behind": _with(_PUT, "behind"),
    "in_front_of": _with(_PUT, "in front of"),
    "unstack": ("take the {target} off the {goal}", "unstack the {target} from the {goal}",
                "remove the {target} from the {goal}", "lift the {target} off the {goal}",
                "grab the {target} and lift it off the {goal}"),
}  # fmt: skip


def season_sentences(verb: str, *, evaluation: bool) -> list[str]:
    """All sentences of a verb that training, or evaluation, seasons draw from."""
    public = {sentence for sentences in TEMPLATES[verb].values() for sentence in sentences}
    every = [form.format(core) for core in CORES[verb] for form in _FORMS]
    mine = [sentence for i, sentence in enumerate(every) if (i + i // len(_FORMS)) % 2 == int(evaluation)]
    return [sentence for sentence in mine if sentence not in public]


def season_templates(
    rng: np.random.Generator, *, evaluation: bool
) -> dict[str, dict[Wording, tuple[str, ...]]]:
    """A season's own sentences of each verb, for demonstrations and held out from them."""
    templates: dict[str, dict[Wording, tuple[str, ...]]] = {}
    for verb in TEMPLATES:
        sentences = season_sentences(verb, evaluation=evaluation)
        chosen = [sentences[int(i)] for i in rng.permutation(len(sentences))[: NUM_TRAIN + NUM_HELDOUT]]
        templates[verb] = {"train": tuple(chosen[:NUM_TRAIN]), "heldout": tuple(chosen[NUM_TRAIN:])}
    return templates
