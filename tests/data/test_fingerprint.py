"""What a fingerprint of files covers, and what it says it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vla.data.readers import fingerprint as module
from vla.data.readers.fingerprint import SHARE_BYTES, fingerprint


def change(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path, rng: np.random.Generator) -> Path:
    (tmp_path / "small").write_bytes(rng.bytes(1000))
    (tmp_path / "large").write_bytes(rng.bytes(5 * SHARE_BYTES))
    return tmp_path


def test_every_byte_counts_up_to_the_budget(folder: Path) -> None:
    files, size = sorted(folder.iterdir()), 5 * SHARE_BYTES
    seen = [fingerprint(files, folder)]
    for place in (0, size // 2, size - 1):
        change(folder / "large", place)
        seen.append(fingerprint(files, folder))
    (folder / "small").rename(folder / "other")
    seen.append(fingerprint(sorted(folder.iterdir()), folder))
    assert len({str(facts) for facts in seen}) == 5


def test_beyond_the_budget_small_files_are_whole_and_large_ones_covered_in_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUDGET_BYTES", 1)
    files = sorted(folder.iterdir())
    before = fingerprint(files, folder)
    read = _bytes_read(files, folder, monkeypatch)
    assert read < SHARE_BYTES + 2000
    for file, place in (("large", 0), ("large", 5 * SHARE_BYTES - 1), ("small", 500)):
        change(folder / file, place)
        assert fingerprint(files, folder) != before
        change(folder / file, place)
    assert fingerprint(files, folder) == before
    change(folder / "large", 20 << 10)  # between two blocks: what the docstring says is not seen
    assert fingerprint(files, folder) == before


def test_the_footer_of_a_large_table_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET_BYTES", 1)
    table = pa.table({f"a column with a long name {i}": np.arange(2000) + i for i in range(300)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=500, compression="none")
    before = fingerprint([tmp_path / "t.parquet"], tmp_path)
    size, footer = (tmp_path / "t.parquet").stat().st_size, pq.read_metadata(tmp_path / "t.parquet")
    assert footer.serialized_size > 40_000
    for place in range(size - 8 - footer.serialized_size, size, 9973):
        change(tmp_path / "t.parquet", place)
        assert fingerprint([tmp_path / "t.parquet"], tmp_path) != before
        change(tmp_path / "t.parquet", place)


def _bytes_read(files: list[Path], root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    counted: list[int] = []
    whole = module.crc32c
    with monkeypatch.context() as patch:
        patch.setattr(module, "crc32c", lambda data: (counted.append(len(data) - 4), whole(data))[1])
        fingerprint(files, root)
    return sum(counted)
