"""The headless renderer, chosen once, before MuJoCo is imported, and reported.

On a machine without a GPU, EGL (Mesa llvmpipe) and OSMesa cost the same; what decides speed is to
switch shadows, reflections and multisampling off, to keep faces few, and to render with one thread
per process (``LP_NUM_THREADS=0``): a factor of 50-100 over MuJoCo's defaults.
"""

from __future__ import annotations

import ctypes.util
import functools
import importlib
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Backend:
    """Which OpenGL backend MuJoCo uses and why."""

    name: str
    reason: str


@functools.cache
def choose_backend() -> Backend:
    """Set ``MUJOCO_GL`` to the fastest backend that can work here; respects one already set."""
    os.environ.setdefault("LP_NUM_THREADS", "0")
    given = os.environ.get("MUJOCO_GL")
    if given:
        backend = Backend(given, "MUJOCO_GL is set in the environment")
    elif ctypes.util.find_library("EGL"):
        backend = Backend("egl", "libEGL is installed")
    elif ctypes.util.find_library("OSMesa"):
        backend = Backend("osmesa", "libOSMesa is installed and libEGL is not")
    elif os.environ.get("DISPLAY"):
        backend = Backend("glfw", "neither libEGL nor libOSMesa is installed, but there is a display")
    else:
        backend = Backend("none", "no libEGL, no libOSMesa, no display: install libegl1 libgl1-mesa-dri")
    if backend.name != "none":
        os.environ["MUJOCO_GL"] = backend.name
        if backend.name == "osmesa":
            os.environ.setdefault("PYOPENGL_PLATFORM", "osmesa")
        _tell_mujoco()
    return backend


def _tell_mujoco() -> None:
    """MuJoCo reads ``MUJOCO_GL`` when it is imported; where that happened before, let it read it again."""
    chosen = sys.modules.get("mujoco.rendering.classic.gl_context")
    if chosen is not None:
        importlib.reload(chosen)
