"""What is wrong with a recipe in one message: file and line, and the names that are near an unknown one."""

from __future__ import annotations

import builtins
import difflib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FrameType, TracebackType

from vla.errors import ConfigError, VlaError


@contextmanager
def recipe_errors(path: Path) -> Iterator[None]:
    """Make a :class:`~vla.errors.ConfigError` with file and line of whatever running a recipe raises."""
    try:
        yield
    except SyntaxError as error:
        where = f"{error.filename or path}:{error.lineno}"
        code = (error.text or "").strip()
        raise ConfigError(f"{where}: {error.msg}{f': {code}' if code else ''}") from error
    except Exception as error:  # a recipe is anybody's code
        line, frame = _place(path, error.__traceback__)
        kind = "" if isinstance(error, VlaError) else f"{type(error).__name__}: "
        raise ConfigError(f"{path}:{line}: {kind}{error}{_near(error, frame)}") from error


def _place(path: Path, trace: TracebackType | None) -> tuple[int, FrameType | None]:
    """Line and frame of the recipe that were running."""
    found: tuple[int, FrameType | None] = (1, None)
    for frame, line in traceback.walk_tb(trace):
        if frame.f_code.co_filename == os.path.abspath(path):  # as importlib makes it
            found = line, frame
    return found


def _near(error: Exception, frame: FrameType | None) -> str:
    """Names that are known and look like the unknown one; empty where no name is the matter."""
    given, known = _unknown(error, frame)
    close = difflib.get_close_matches(given, sorted(set(known)), n=3, cutoff=0.5)
    return f". Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _unknown(error: Exception, frame: FrameType | None) -> tuple[str, Iterable[str]]:
    names = {**frame.f_globals, **frame.f_locals} if frame is not None else {}
    if isinstance(error, NameError):
        return error.name or "", [*names, *dir(builtins)]
    if isinstance(error, AttributeError):
        return error.name or "", dir(error.obj)
    if found := re.match(r"cannot import name '(\w+)' from '([\w.]+)'", str(error)):
        return found[1], dir(sys.modules.get(found[2]))
    if found := re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)):
        made = names.get(found[1])
        return found[2], [field.name for field in fields(made)] if is_dataclass(made) else []
    return "", []
