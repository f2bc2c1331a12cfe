"""What people say: templates with paraphrases per task, train and held-out wordings, and a parser.

Held-out wordings never appear in demonstrations. They recombine known verbs, nouns and connecting
words, so that a word-level policy can be asked to understand the sentence but not new words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from vla.errors import VlaError
from vla.interfaces import Wording
from vla_envs.tabletop.names import ALL_COLORS

TEMPLATES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "pick": {
        "train": (
            "pick up the {target}",
            "lift the {target}",
            "grab the {target}",
            "take the {target} and lift it up",
            "please pick the {target} up",
        ),
        "heldout": (
            "please grab the {target} and lift it",
            "take the {target} up",
            "please lift up the {target}",
        ),
    },
    "place": {
        "train": (
            "put the {target} {prep} the {goal}",
            "place the {target} {prep} the {goal}",
            "take the {target} and put it {prep} the {goal}",
            "move the {target} onto the {goal}",
            "please drop the {target} {prep} the {goal}",
        ),
        "heldout": (
            "please put the {target} {prep} the {goal}",
            "grab the {target} and place it {prep} the {goal}",
            "pick up the {target} and drop it {prep} the {goal}",
        ),
    },
    "push": {
        "train": (
            "push the {target} to the {goal}",
            "push the {target} into the {goal}",
            "slide the {target} to the {goal}",
            "please slide the {target} over to the {goal}",
        ),
        "heldout": ("please push the {target} over to the {goal}", "slide the {target} into the {goal}"),
    },
    "stack": {
        "train": (
            "stack the {target} on the {goal}",
            "stack the {target} on top of the {goal}",
            "put the {target} on top of the {goal}",
            "take the {target} and stack it on the {goal}",
        ),
        "heldout": (
            "please stack the {target} on top of the {goal}",
            "place the {target} on top of the {goal}",
        ),
    },
    "knock": {
        "train": (
            "knock over the {target}",
            "knock the {target} over",
            "tip over the {target}",
            "please tip the {target} over",
        ),
        "heldout": ("please knock the {target} over", "tip the {target} over"),
    },
    "open": {
        "train": ("open the {target}", "pull the {target} open", "please open the {target}"),
        "heldout": ("please pull the {target} open", "pull open the {target}"),
    },
    "close": {
        "train": ("close the {target}", "shut the {target}", "please close the {target}"),
        "heldout": ("please shut the {target}", "push the {target} shut"),
    },
    "press": {
        "train": (
            "press the {target}",
            "push down the {target}",
            "press the {target} down",
            "please press the {target}",
        ),
        "heldout": ("please push down the {target}", "please press down the {target}"),
    },
    "clockwise": {
        "train": (
            "turn the {target} clockwise",
            "rotate the {target} clockwise",
            "twist the {target} clockwise",
            "please turn the {target} clockwise",
        ),
        "heldout": ("please rotate the {target} clockwise", "please twist the {target} clockwise"),
    },
    "counterclockwise": {
        "train": (
            "turn the {target} counterclockwise",
            "rotate the {target} counterclockwise",
            "twist the {target} counterclockwise",
            "please turn the {target} counterclockwise",
        ),
        "heldout": (
            "please rotate the {target} counterclockwise",
            "please twist the {target} counterclockwise",
        ),
    },
    "slide_left": {
        "train": (
            "slide the {target} to the left",
            "move the {target} to the left",
            "push the {target} left",
            "please move the {target} left",
        ),
        "heldout": ("please slide the {target} left", "push the {target} over to the left"),
    },
    "slide_right": {
        "train": (
            "slide the {target} to the right",
            "move the {target} to the right",
            "push the {target} right",
            "please move the {target} right",
        ),
        "heldout": ("please slide the {target} right", "push the {target} over to the right"),
    },
    "insert": {
        "train": (
            "insert the {target} into the {goal}",
            "put the {target} in the {goal}",
            "put the {target} into the {goal}",
            "please insert the {target} in the {goal}",
        ),
        "heldout": (
            "please put the {target} into the {goal}",
            "take the {target} and insert it in the {goal}",
        ),
    },
    "left_of": {
        "train": (
            "put the {target} to the left of the {goal}",
            "place the {target} to the left of the {goal}",
            "move the {target} to the left of the {goal}",
            "please set the {target} to the left of the {goal}",
        ),
        "heldout": (
            "please place the {target} to the left of the {goal}",
            "take the {target} and set it to the left of the {goal}",
        ),
    },
    "right_of": {
        "train": (
            "put the {target} to the right of the {goal}",
            "place the {target} to the right of the {goal}",
            "move the {target} to the right of the {goal}",
            "please set the {target} to the right of the {goal}",
        ),
        "heldout": (
            "please place the {target} to the right of the {goal}",
            "take the {target} and set it to the right of the {goal}",
        ),
    },
    "behind": {
        "train": (
            "put the {target} behind the {goal}",
            "place the {target} behind the {goal}",
            "move the {target} behind the {goal}",
            "please set the {target} behind the {goal}",
        ),
        "heldout": (
            "please place the {target} behind the {goal}",
            "take the {target} and set it behind the {goal}",
        ),
    },
    "in_front_of": {
        "train": (
            "put the {target} in front of the {goal}",
            "place the {target} in front of the {goal}",
            "move the {target} in front of the {goal}",
            "please set the {target} in front of the {goal}",
        ),
        "heldout": (
            "please place the {target} in front of the {goal}",
            "take the {target} and set it in front of the {goal}",
        ),
    },
    "unstack": {
        "train": (
            "take the {target} off the {goal}",
            "unstack the {target} from the {goal}",
            "remove the {target} from the {goal}",
            "please lift the {target} off the {goal}",
        ),
        "heldout": ("please take the {target} off the {goal}", "please remove the {target} from the {goal}"),
    },
}

RELATIONS: Mapping[str, tuple[str, ...]] = {
    "left": ("left cube", "cube on the left", "leftmost cube"),
    "middle": ("middle cube", "cube in the middle"),
    "right": ("right cube", "cube on the right", "rightmost cube"),
    "left_of": ("cube left of the bowl", "cube to the left of the bowl"),
    "right_of": ("cube right of the bowl", "cube to the right of the bowl"),
    "behind": ("cube behind the bowl",),
    "in_front_of": ("cube in front of the bowl",),
    "smallest": ("smallest cube", "small cube"),
    "largest": ("largest cube", "big cube"),
}
_KINDS: dict[str, str] = {
    "cube": "cube",
    "block": "cube",
    "cylinder": "cylinder",
    "can": "cylinder",
    "bottle": "bottle",
}
_NOUNS = (*_KINDS, "bowl", "plate", "zone", "button", "drawer", "dial", "slider", "peg", "socket")
_PUT = r"\b(put|place|move|set)\b.*"
_VERBS = (
    ("clockwise", r"\b(turn|rotate|twist)\b.*\bclockwise\b"),
    ("counterclockwise", r"\b(turn|rotate|twist)\b.*\bcounterclockwise\b"),
    ("slide_left", r"\bslider\b.*\bleft\b"),
    ("slide_right", r"\bslider\b.*\bright\b"),
    ("insert", r"\binsert\b|\bpeg\b.*\bsocket\b"),
    ("left_of", _PUT + r"\bleft of\b"),
    ("right_of", _PUT + r"\bright of\b"),
    ("behind", _PUT + r"\bbehind\b"),
    ("in_front_of", _PUT + r"\bin front of\b"),
    ("unstack", r"\b(unstack|remove)\b|\b(take|lift|pick|grab)\b.*\boff\b"),
    ("knock", r"\b(knock|tip)\b"),
    ("stack", r"\bstack\b|\bon top of\b"),
    ("open", r"\bopen\b"),
    ("close", r"\b(close|shut)\b"),
    ("push", r"\b(push|slide)\b.*\bzone\b"),
    ("press", r"\b(press|push down)\b"),
    ("place", r"\b(put|place|drop|move)\b|\b(in|into|on|onto) the\b.*\b(bowl|plate)\b"),
    ("pick", r"\b(pick|lift|grab|take)\b"),
)


def phrase(
    verb: str,
    target: str,
    goal: str | None,
    rng: np.random.Generator,
    wording: Wording,
    prep: str = "on",
    templates: Mapping[str, Mapping[Wording, tuple[str, ...]]] | None = None,
) -> str:
    """A sentence for this verb from the named set of wordings, drawn by ``rng``.

    ``templates`` are a season's own; without them the public ``TEMPLATES``.
    """
    options = (TEMPLATES if templates is None else templates)[verb][wording]
    return options[int(rng.integers(len(options)))].format(target=target, goal=goal, prep=prep)


class ParseError(VlaError, ValueError):
    """A sentence that names nothing this scene can do."""


def parse_verb(text: str) -> str:
    """The verb (key of ``TEMPLATES``) a sentence asks for."""
    words = normalise(text)
    if re.search(r"\b(not|don t|dont|never|except)\b", words):
        raise ParseError(f"{text!r} says what not to do. Say what to do.")
    for verb, pattern in _VERBS:
        if re.search(pattern, words):
            return verb
    raise ParseError(
        f"No known verb in {text!r}. "
        "Say one of: pick up, put ... in, put ... to the left of, push ... to, stack, take ... off, "
        "knock over, open, close, press, turn ... clockwise, slide ... to the left, insert ... into."
    )


def parse_things(text: str) -> list[tuple[str, str]]:
    """(colour, noun) pairs in the order said, e.g. ``[("red", "cube"), ("blue", "bowl")]``."""
    pattern = rf"\b({'|'.join(ALL_COLORS)})\s+({'|'.join(_NOUNS)})s?\b"
    return [(str(color), _KINDS.get(noun, str(noun))) for color, noun in re.findall(pattern, normalise(text))]


def parse_relation(text: str) -> str | None:
    """The relation named by a sentence such as "pick up the cube behind the bowl", or None."""
    words = normalise(text)
    found = [(len(p), name) for name, phrases in RELATIONS.items() for p in phrases if p in words]
    return max(found)[1] if found else None


def normalise(text: str) -> str:
    """Lower case, punctuation removed, single spaces."""
    return re.sub(r"\s+", " ", re.sub(r"[^a-z0-9 ]+", " ", text.lower())).strip()
