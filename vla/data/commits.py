"""The log that commits the episodes of a part: a line each, with checksums of itself and of every column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from vla.data.remote import RemotePath
from vla.data.shards import crc32c
from vla.errors import StoreError
from vla.text import quoted

LOG = "episodes/commits.jsonl"  # inside an array's directory, where zarr libraries do not look
_PREFIX = b'{"crc32c":"00000000","commit":'
#: Columns of the ``episodes`` array, which says the same for other libraries.
EPISODE_COLUMNS = ("embodiment", "start", "length", "success")
_UNKNOWN = -1  # success there; null in the log


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One committed episode: where it lies in its part and what its bytes must sum to.

    ``start`` and ``length`` count rows of the embodiment's arrays; ``crc32c`` has one checksum per
    column, in writing order, and so says which columns the episode has. ``success`` is None where unknown.
    """

    embodiment: str
    instruction: str
    success: bool | None
    start: int
    length: int
    frame_bytes: Mapping[str, int]  # camera -> end of its frames in the byte array
    crc32c: Mapping[str, int]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def row(self, embodiments: Sequence[str]) -> list[int]:
        """Its :data:`EPISODE_COLUMNS`; ``embodiments`` in the order of the store's header."""
        success = _UNKNOWN if self.success is None else int(self.success)
        return [embodiments.index(self.embodiment), self.start, self.length, success]

    def line(self) -> bytes:
        payload = json.dumps(asdict(self), separators=(",", ":")).encode()
        return _PREFIX.replace(b"00000000", b"%08x" % crc32c(payload)) + payload + b"}\n"

    @classmethod
    def parse(cls, line: bytes) -> Commit | None:
        """None where the line is damaged."""
        payload = line[len(_PREFIX) : -2]
        if line != _PREFIX.replace(b"00000000", b"%08x" % crc32c(payload)) + payload + b"}\n":
            return None
        data = json.loads(payload)
        if set(data) != {f.name for f in fields(cls)}:
            raise StoreError(f"A commit has the keys {quoted(sorted(data))}: written by another version?")
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class CommitLog:
    """What a log holds: commits, where the last whole one ends, and what is wrong with the rest."""

    commits: tuple[Commit, ...]
    valid_bytes: int
    torn_bytes: int
    damaged_lines: tuple[int, ...]


def read_log(path: Path | RemotePath) -> CommitLog:
    """Read a commit log; a half-written last line is not damage but an episode never committed."""
    raw = path.read_bytes() if path.exists() else b""
    lines = raw.splitlines(keepends=True)
    torn = 0
    if lines and not lines[-1].endswith(b"\n") and not _whole_but_its_end(lines[-1]):
        torn = len(lines.pop())
    commits = [Commit.parse(line) for line in lines]
    return CommitLog(
        commits=tuple(c for c in commits if c is not None),
        valid_bytes=len(raw) - torn,
        torn_bytes=torn,
        damaged_lines=tuple(number for number, c in enumerate(commits, 1) if c is None),
    )


def _whole_but_its_end(line: bytes) -> bool:
    """Whether a last line was committed and its newline changed since; then it counts as damaged."""
    return Commit.parse(line[:-1] + b"\n") is not None
