"""A policy that ``vla serve`` answers for, elsewhere: ``--policy remote:url=ws://127.0.0.1:8000``."""

from __future__ import annotations

from pathlib import Path

from vla.errors import ConfigError
from vla.serve.client import RemoteConfig, RemotePolicy


def make(
    *, url: str, token_file: str | None = None, tls_ca: str | None = None, deadline_s: float = 30.0
) -> RemotePolicy:
    """The registered factory of ``remote`` policies; see :class:`~vla.serve.client.RemoteConfig`.

    Args:
        token_file: what the server asks for, in a file: command lines are seen by others.

    Raises:
        ConfigError: a file that cannot be read, or a URL that is none.
        RemoteError: no server there, or one that refuses.
    """
    try:
        token = "" if token_file is None else Path(token_file).read_text().strip()
    except OSError as error:
        raise ConfigError(f"Cannot read the token: {error}.") from error
    return RemotePolicy(
        RemoteConfig(
            url=url,
            token=token,
            tls_ca=None if tls_ca is None else Path(tls_ca),
            deadline_s=float(deadline_s),
        )
    )
