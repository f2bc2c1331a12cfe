"""HDF5 files opened as they are read: some at a time, and each process its own."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from vla.errors import DatasetError, MissingExtraError

MAX_OPEN_FILES = 64  # ALOHA has a file an episode


class Hdf5Files:
    """Open ``h5py.File`` objects by path; safe to use after a fork, in a spawned process and from threads."""

    def __init__(self) -> None:
        self._reset()

    def get(self, path: Path) -> Any:
        """The open file.

        Raises:
            DatasetError: it is missing or no whole HDF5 file.
            MissingExtraError: h5py is not installed.
        """
        with self._mine():
            if path not in self._files:
                self._files[path] = _open(path)
                if len(self._files) > MAX_OPEN_FILES:
                    self._files.popitem(last=False)[1].close()
            self._files.move_to_end(path)
            return self._files[path]

    def read(self, path: Path, group: str, name: str, rows: slice | int) -> np.ndarray:
        """Rows of a data set below a group; raises as h5py does."""
        with self._mine():  # so that no other thread closes the file meanwhile
            return np.asarray(self.get(path)[group][name][rows])

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _mine(self) -> threading.RLock:
        if self._pid != os.getpid():
            self._reset()
        return self._lock

    def _reset(self) -> None:
        self._files: OrderedDict[Path, Any] = OrderedDict()
        self._lock, self._pid = threading.RLock(), os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, _: dict[str, Any]) -> None:
        self._reset()


def _open(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "formats", f"Reading {path}") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DatasetError(
            f"{path} is no whole HDF5 file ({error}). It was cut short: fetch it again."
        ) from error
