"""Columns of parquet files, some row groups at a time; what was read last is kept, up to a limit.

Pages that carry a checksum (those that this package writes do; the default of other writers is none) are
verified when they are read.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vla.data.damage import LEAVE_OUT
from vla.data.guard import reading
from vla.data.readers.lerobot_meta import PURPOSE
from vla.errors import DatasetError, MissingExtraError
from vla.text import counted, quoted

MAX_BYTES = 96 * 2**20  # of columns kept
_BLOCK_ROWS = 8192  # of numbers read at once: a row group is often one short episode
_MAX_OPEN_FILES = 8
AGAIN = f"Fetch or export it again, or {LEAVE_OUT}"


class Tables:
    """Rows of parquet files by number; safe to use after a fork and from several threads."""

    def __init__(self) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise MissingExtraError("pyarrow", "formats", PURPOSE) from None
        self._reset()

    def num_rows(self, path: Path) -> int:
        return self._file(path)[0].metadata.num_rows

    def names(self, path: Path) -> list[str]:
        """Names of the columns of a file."""
        return self._file(path)[0].schema_arrow.names

    def values(self, path: Path, column: str, start: int, stop: int, size: int) -> np.ndarray:
        """Rows ``start..stop`` of a numeric column: [n size] in the stored dtype."""
        _, offsets = self._file(path)
        blocks = np.unique(offsets[:-1] // _BLOCK_ROWS, return_index=True)[1]
        try:
            found = self._parts(path, column, start, stop, blocks)
        except DatasetError:  # perhaps in a row group that was not asked for
            found = self._parts(path, column, start, stop, np.arange(len(offsets) - 1))
        where = f"{path}, column {column!r}"
        with reading(where):
            parts = [_numbers(chunk.slice(low, high - low), where, size) for chunk, low, high in found]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def cell(self, path: Path, column: str, row: int) -> Any:
        """One entry of a column that holds no numbers."""
        _, offsets = self._file(path)
        [(chunk, low, _)] = self._parts(path, column, row, row + 1, np.arange(len(offsets) - 1))
        return chunk[low].as_py()

    def close(self) -> None:
        for file, _ in self._files.values():
            file.close()
        self._reset()

    def _parts(
        self, path: Path, column: str, start: int, stop: int, blocks: np.ndarray
    ) -> list[tuple[Any, int, int]]:
        """(values, first and last row) of each block touched; ``blocks``: their first row groups."""
        file, offsets = self._file(path)
        if stop > offsets[-1]:
            raise DatasetError(f"{path} has {offsets[-1]} rows, expected at least {stop}: it is truncated.")
        groups = [*blocks.tolist(), len(offsets) - 1]
        found = []
        for first, last in pairwise(groups):
            begin, end = int(offsets[first]), int(offsets[last])
            if begin < stop and end > start:
                chunk = self._column(file, path, range(first, last), column)
                found.append((chunk, max(start - begin, 0), min(stop, end) - begin))
        return found

    def _column(self, file: Any, path: Path, groups: range, column: str) -> Any:
        import pyarrow as pa

        key = (path, groups, column)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if column not in file.schema_arrow.names:
                raise DatasetError(
                    f"{path} has no column {column!r}; it has {quoted(file.schema_arrow.names)}."
                )
            with reading(f"{path}, column {column!r}"):
                table = file.read_row_groups(list(groups), columns=[column], use_threads=False)
            chunk = table.column(0).combine_chunks()
            values = self._kept[key] = chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk
            self._bytes += values.nbytes
            while self._bytes > MAX_BYTES and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            return values

    def _file(self, path: Path) -> tuple[Any, np.ndarray]:
        import pyarrow.parquet as pq

        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            if path not in self._files:
                if not path.is_file():
                    raise DatasetError(f"{path} is missing.")
                with reading(path, "parquet file"):
                    file = pq.ParquetFile(path, page_checksum_verification=True)
                    rows = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
                self._files[path] = (file, np.cumsum([0, *rows]))
                if len(self._files) > _MAX_OPEN_FILES:
                    self._files.popitem(last=False)[1][0].close()
            self._files.move_to_end(path)
            return self._files[path]

    def _reset(self) -> None:
        self._files: OrderedDict[Path, tuple[Any, np.ndarray]] = OrderedDict()
        self._kept: OrderedDict[tuple[Path, range, str], Any] = OrderedDict()
        self._bytes, self._lock, self._pid = 0, threading.Lock(), os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # a spawned process opens its own

    def __setstate__(self, _: dict[str, Any]) -> None:
        self._reset()


def _numbers(values: Any, where: str, size: int) -> np.ndarray:
    """Arrow numbers, or lists of equally many -> [n size]."""
    import pyarrow as pa

    count = len(values)
    while isinstance(values, pa.ExtensionArray):
        values = values.storage
    nested = values
    while pa.types.is_nested(nested.type) and not pa.types.is_struct(nested.type) and not nested.null_count:
        if pa.types.is_list(nested.type) or pa.types.is_large_list(nested.type):
            lengths = np.unique(nested.value_lengths().to_numpy(zero_copy_only=False))
            if len(lengths) > 1:
                raise DatasetError(
                    f"{where} is ragged: rows of {' and '.join(map(str, lengths.tolist()))} entries."
                )
        nested = nested.flatten()
    if nested.null_count:
        raise DatasetError(f"{where} has {counted(nested.null_count, 'empty value')}.")
    if len(nested) != count * size:
        raise DatasetError(
            f"{where} has {len(nested) / max(count, 1):g} entries a row; meta/info.json states {size}."
        )
    return nested.to_numpy(zero_copy_only=False).reshape(count, size)
