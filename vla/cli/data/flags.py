"""Flags that the actions of ``vla data`` share: which demonstrations, and who says what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from vla.cli.flags import explained

if TYPE_CHECKING:
    from vla.data.source import EpisodeSource


#: What an action reads.
DataPath = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """Which demonstrations to read.

    Args:
        path: directory, file or URL: LeRobotDataset, RLDS, HDF5, diffusion-policy zarr, or our own store.
        description: embodiment file that says what the columns mean.
        cameras: read only these of a foreign format, by their stored names, separated by commas ('' for
            none); pictures of the others need not be there.
    """

    path: DataPath
    description: Annotated[str | None, explained("the one beside the data")] = None
    cameras: Annotated[str | None, explained("those of the embodiment file, else all")] = None

    def open(
        self, *, instruction: str = "", skip_damaged: bool = False, tolerate_damage: bool = False
    ) -> EpisodeSource:
        """As ``vla.data.readers.open_source`` does; the caller closes it."""
        from vla.data.readers import open_source

        return open_source(
            self.path,
            self.description,
            instruction=instruction,
            skip_damaged=skip_damaged,
            tolerate_damage=tolerate_damage,
            cameras=self._cameras(),
        )

    def open_to_look(self, *, tolerate_damage: bool = False) -> EpisodeSource:
        """As ``vla.data.readers.open_to_look`` does, saying so where columns have no meaning yet."""
        import sys

        from vla.data.readers import open_to_look
        from vla.data.undescribed import UndescribedSource

        source = open_to_look(
            self.path, self.description, tolerate_damage=tolerate_damage, cameras=self._cameras()
        )
        if isinstance(source, UndescribedSource):
            print(
                f"{self.path}: nobody says what the columns mean; they are shown as they are stored. "
                f"'vla data solve {self.path}' finds out what it can.",
                file=sys.stderr,
            )
        return source

    def _cameras(self) -> list[str] | None:
        if self.cameras is None:
            return None
        return [name.strip() for name in self.cameras.split(",") if name.strip()]
