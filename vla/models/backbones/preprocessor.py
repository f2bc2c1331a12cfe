"""A checkpoint's own file of how pictures are prepared, as :class:`vla.models.backbones.pixels.Pixels`.

transformers keeps it in ``preprocessor_config.json``, or in newer checkpoints as ``image_processor`` in
``processor_config.json``. What it leaves out is the family's usual.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import cached_file

from vla.errors import CheckpointError, ConfigError
from vla.models.backbones.pixels import Fit, Pixels

if TYPE_CHECKING:
    from vla.models.backbones.families import Family

FILES = ("processor_config.json", "preprocessor_config.json")
DEFAULTS = "the family's defaults"
_RESAMPLE = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
#: Switches that we know; splitting is a setting of ours (``tiles``), padding is for pictures of unlike sizes.
_KNOWN = {
    "do_resize",
    "do_rescale",
    "do_normalize",
    "do_center_crop",
    "do_convert_rgb",
    "do_pad",
    "do_image_splitting",
}
#: Sizes of patches that stand in the model's config, too: name there.
_PATCHES = {
    "patch_size": "patch_size",
    "temporal_patch_size": "temporal_patch_size",
    "merge_size": "spatial_merge_size",
    "pooling_kernel_size": "pooling_kernel_size",
}


def read_pixels(source: str, family: Family, config: Any, side: int | None = None) -> tuple[Pixels, str]:
    """How the checkpoint at ``source`` (a folder or hub name) is shown pictures, and which file says so.

    Args:
        source: where the checkpoint is.
        family: whose defaults fill what is not said.
        config: of the model.
        side: of the pictures that trained positions fit, px; a file that makes others raises (None: any).

    Raises:
        CheckpointError: the file is no JSON object.
        ConfigError: it asks for something that is not reproduced here.
    """
    values, name = _read(source)
    if values is None:
        return family.pixels, DEFAULTS
    where = f"{name} of {source!r}"
    _refuse_unknown(values, where)
    _check_patches(values, config, where)
    pixels = _fit(values, family, where)
    made = _first(values.get("crop_size") if values.get("do_center_crop") else None, values.get("size"))
    if side is not None and made not in (None, side):
        raise ConfigError(
            f"{where} makes pictures of {made} px, but the model's learned positions fit {side} px: one of "
            "the two files belongs to another checkpoint."
        )
    return pixels, name


def _read(source: str) -> tuple[Mapping[str, Any] | None, str]:
    for name in FILES:
        try:
            path = cached_file(source, name)
            values = json.loads(Path(str(path)).read_text()) if path else None
        except OSError:  # not there
            continue
        except ValueError as error:
            raise CheckpointError(f"{name} of {source!r} is no JSON: {error}") from error
        if values is not None and not isinstance(values, Mapping):
            raise CheckpointError(f"{name} of {source!r} holds no JSON object.")
        if values is not None and name == FILES[0]:
            values = values.get("image_processor")
        if values is not None:
            return values, name
    return None, DEFAULTS


def _refuse_unknown(values: Mapping[str, Any], where: str) -> None:
    for key, value in values.items():
        if key.startswith("do_") and value and key not in _KNOWN:
            raise ConfigError(f"{where} sets {key}, which is not reproduced here; known: {sorted(_KNOWN)}.")
    if values.get("do_resize") is False:
        raise ConfigError(f"{where} leaves pictures at their own size; here they are always resized.")


def _check_patches(values: Mapping[str, Any], config: Any, where: str) -> None:
    vision = getattr(config, "vision_config", None)
    for key, name in _PATCHES.items():
        theirs, ours = values.get(key), getattr(vision, name, None)
        if isinstance(theirs, int) and isinstance(ours, int) and theirs != ours:
            raise ConfigError(f"{where} says {key} {theirs}, the model's config {name} {ours}.")


def _fit(values: Mapping[str, Any], family: Family, where: str) -> Pixels:
    usual = family.pixels
    mode = values.get("resample")
    if mode is not None and mode not in _RESAMPLE:
        raise ConfigError(f"{where} has the filter {mode!r}; known are Pillow's numbers {_RESAMPLE}.")
    mean, std = (_colours(values, key, where) for key in ("image_mean", "image_std"))
    if values.get("do_normalize") is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    rescale = float(values.get("rescale_factor") or usual.rescale)
    fit, margin = _shape(values, family, where)
    return replace(
        usual,
        mean=mean or usual.mean,
        std=std or usual.std,
        mode=usual.mode if mode is None else _RESAMPLE[mode],
        rescale=1.0 if values.get("do_rescale") is False else rescale,
        fit=fit,
        margin=margin,
    )


def _shape(values: Mapping[str, Any], family: Family, where: str) -> tuple[Fit, float]:
    """What is done to pictures that are not square, and the margin that a crop cuts off."""
    if values.get("do_pad") and str(values.get("image_processor_type")).startswith("LlavaImageProcessor"):
        return "pad", 1.0
    crops = values.get("do_center_crop")
    if crops is None:
        return family.pixels.fit, family.pixels.margin
    if not crops or family.tiling is not None:
        return "squash", 1.0
    made, left = _first(values.get("size")), _first(values.get("crop_size"))
    if made is None or left is None or left > made:
        raise ConfigError(f"{where} crops {values.get('crop_size')} out of {values.get('size')}.")
    size = values["size"]
    keeps_shape = isinstance(size, int) or "shortest_edge" in size
    if not keeps_shape and made != left:
        raise ConfigError(f"{where} squashes pictures to {size} and crops them; that is not reproduced here.")
    return ("crop" if keeps_shape else "squash"), made / left


def _first(*sizes: Any) -> int | None:
    """The side in px that the first of the sizes that is given says, if it says one."""
    size = next((size for size in sizes if size), None)
    if not isinstance(size, Mapping):
        return size
    sides = {size[key] for key in ("shortest_edge", "height", "width") if size.get(key)}
    return sides.pop() if len(sides) == 1 else None


def _colours(values: Mapping[str, Any], key: str, where: str) -> tuple[float, ...] | None:
    value = values.get(key)
    if value is None:
        return None
    numbers = [value] * 3 if isinstance(value, int | float) else value
    if not isinstance(numbers, list) or len(numbers) != 3:
        raise ConfigError(f"{where} has {key} {value!r}; three numbers are expected, one a colour.")
    return tuple(float(number) for number in numbers)


def copy_preprocessor(source: str, target: str | Path) -> None:
    """The file, where there is one, into the folder ``target``."""
    _, name = _read(source)
    if name != DEFAULTS:
        shutil.copyfile(str(cached_file(source, name)), Path(target) / name)
