"""Questions about pictures with their answers: from a file, or asked about the frames of demonstrations.

A place is told in thousandths of the picture's width and height, x first, as Qwen-VL does (arXiv:2308.12966):
``(423, 310)``, a box by two corners.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vla.data.batch import Batch
from vla.errors import DatasetError
from vla.train.batches import keypoint_labels, thing_labels

#: What a line of a file may hold.
KEYS = ("image", "question", "answer", "thing", "point", "box")


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """One question.

    Args:
        image: uint8 [h w 3].
        camera: place of the camera that the picture is of, among the policy's.
        text, answer: as a person would say them.
        thing, uv: where the answer is a place: what is there, and its middle, x and y in [-1, 1].
    """

    image: np.ndarray
    camera: int
    text: str
    answer: str
    thing: str = ""
    uv: tuple[float, float] = (float("nan"), float("nan"))


def point_text(x: float, y: float) -> str:
    """``(423, 310)`` for shares 0..1 of width and height."""
    return f"({round(1000 * x)}, {round(1000 * y)})"


class QuestionFile:
    """Questions in JSON lines beside their pictures, each with keys of :data:`KEYS`.

    ``image`` is relative to the file. Either ``question`` and ``answer``; or ``thing`` and where it is,
    ``point`` [x y] or ``box`` [x0 y0 x1 y1] in shares 0..1 of width and height, which gives a question and
    its answer. Pictures are resized to squares of ``image_size`` px, shown in the place of the first camera.

    Raises:
        DatasetError: no such file, or a line that is not as said; names the line.
    """

    def __init__(self, path: str | Path, image_size: int) -> None:
        self.path, self.image_size = Path(path), image_size
        try:
            content = self.path.read_bytes()
            lines = content.decode().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"No questions can be read from {self.path}: {error}.") from error
        self.crc32 = f"{zlib.crc32(content):08x}"
        self.records = [
            _Record.parse(line, self.path.parent, f"{self.path}:{number}")
            for number, line in enumerate(lines, 1)
            if line.strip()
        ]
        if not self.records:
            raise DatasetError(f"{self.path} holds no questions.")

    def __len__(self) -> int:
        return len(self.records)

    @property
    def things(self) -> list[str]:
        """Names whose places are known, sorted."""
        return sorted({record.thing for record in self.records if record.thing})

    @property
    def only_places(self) -> bool:
        """Whether every question is where something is."""
        return all(record.thing for record in self.records)

    def draw(self, rng: np.random.Generator, count: int) -> list[Question]:
        """``count`` of them, with replacement."""
        chosen = [self.records[i] for i in rng.integers(len(self.records), size=count)]
        return [
            Question(
                image=_read_picture(record.image, self.image_size),
                camera=0,
                text=record.text,
                answer=record.answer,
                thing=record.thing,
                uv=record.uv,
            )
            for record in chosen
        ]


@dataclass(frozen=True)
class _Record:
    image: Path
    text: str
    answer: str
    thing: str
    uv: tuple[float, float]

    @classmethod
    def parse(cls, line: str, folder: Path, where: str) -> _Record:
        def refuse(reason: str) -> DatasetError:
            return DatasetError(
                f"{where}: {reason}. A line is a JSON object: `image` and either `question` and `answer`, or "
                "`thing` and `point` [x y] or `box` [x0 y0 x1 y1] in shares 0..1 of width and height."
            )

        try:
            data = json.loads(line)
        except ValueError as error:
            raise refuse(f"not JSON ({error})") from error
        if not isinstance(data, dict) or set(data) - set(KEYS):
            raise refuse(
                f"unknown keys {sorted(set(data) - set(KEYS))}" if isinstance(data, dict) else "no object"
            )
        texts = {key: data.get(key, "") for key in ("image", "question", "answer", "thing")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise refuse("image, question, answer and thing are texts")
        if not texts["image"] or not (folder / texts["image"]).is_file():
            raise refuse(f"no picture {texts['image']!r} in {folder}")
        places = [data[key] for key in ("point", "box") if key in data]
        if bool(texts["thing"]) != (len(places) == 1) or len(places) > 1:
            raise refuse("a thing comes with one point or box, and these with a thing")
        uv = (float("nan"), float("nan"))
        if places:
            (x, y), answer = _place(places[0], 2 if "point" in data else 4, refuse)
            uv = (2 * x - 1, 2 * y - 1)
            texts = {
                **texts,
                "question": texts["question"] or f"where is the {texts['thing']}?",
                "answer": texts["answer"] or answer,
            }
        if not texts["question"] or not texts["answer"]:
            raise refuse("no question, or no answer")
        return cls(folder / texts["image"], texts["question"], texts["answer"], texts["thing"], uv)


def _place(
    place: Any, numbers: int, refuse: Callable[[str], DatasetError]
) -> tuple[tuple[float, float], str]:
    """Its middle in shares, and how it is told."""
    if (
        not isinstance(place, list)
        or len(place) != numbers
        or not all(isinstance(v, (int, float)) and 0 <= v <= 1 for v in place)
        or (numbers == 4 and (place[0] > place[2] or place[1] > place[3]))
    ):
        raise refuse(f"{place} is no {'point' if numbers == 2 else 'box'}")
    corners = [place[i : i + 2] for i in range(0, numbers, 2)]
    x, y = np.mean(corners, axis=0).tolist()
    return (x, y), ", ".join(point_text(*corner) for corner in corners)


def _read_picture(path: Path, size: int) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DatasetError(f"{path} is no picture that can be read.")
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def ask_about(
    batch: Batch,
    camera_roles: Sequence[str],
    rng: np.random.Generator,
    count: int,
    *,
    only_places: bool = False,
) -> list[Question]:
    """Questions about frames of a batch whose labels say what is where; none where no frame has such labels.

    Where is a thing, what is left or right of it in the picture, and where is what the instruction asks for.

    Args:
        batch: of training windows.
        camera_roles: in the order of its pictures.
        rng: draws frames, things and kinds of questions.
        count: of questions.
        only_places: the first kind alone.
    """
    uv_BCM2 = thing_labels(batch, camera_roles)
    target_BC2 = keypoint_labels(batch, camera_roles)[:, :, 0]
    with np.errstate(invalid="ignore"):  # NaN: not in the picture
        seen_BCM = (np.abs(uv_BCM2) <= 1).all(-1) & batch.image_mask[:, :, None]
    for row, names in enumerate(batch.things):
        seen_BCM[row, :, len(names) :] = False
    frames = np.argwhere(seen_BCM.any(-1))
    if not len(frames):
        return []
    questions = []
    for row, camera in frames[rng.integers(len(frames), size=count)]:
        names = batch.things[row]
        places = {names[i]: uv_BCM2[row, camera, i] for i in np.flatnonzero(seen_BCM[row, camera])}
        target = target_BC2[row, camera]
        kinds = ["where"] if only_places else ["where", "left", "right"]
        if not only_places and bool((np.abs(target) <= 1).all()):
            kinds.append("meant")
        thing = list(places)[rng.integers(len(places))]
        kind = kinds[rng.integers(len(kinds))]
        text, answer = _ask(kind, thing, places, target, batch.instructions[row])
        x, y = (float(v) for v in places[thing])
        named = {"thing": thing, "uv": (x, y)} if kind == "where" else {}
        image = batch.images[row, camera]
        questions.append(Question(image=image, camera=int(camera), text=text, answer=answer, **named))
    return questions


def _ask(
    kind: str, thing: str, places: dict[str, np.ndarray], target: np.ndarray, instruction: str
) -> tuple[str, str]:
    if kind in ("where", "meant"):
        place = (places[thing] if kind == "where" else target) / 2 + 0.5
        text = f"where is the {thing}?" if kind == "where" else f"where does the hand go to {instruction}?"
        return text, point_text(*place.tolist())
    sign = -1 if kind == "left" else 1
    beside = [name for name, uv in places.items() if sign * (uv[0] - places[thing][0]) > 0]
    beside.sort(key=lambda name: float(places[name][0]))
    return f"what is {kind} of the {thing} in the picture?", ", ".join(beside) or "nothing"
