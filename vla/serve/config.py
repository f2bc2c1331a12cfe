"""How a policy is served: address, who may come in, limits."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from vla.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How a policy is served.

    Args:
        host: address to listen on; one that others can reach needs a token.
        port: 0 takes any that is free.
        gr00t_port: of GR00T's protocol (ZeroMQ), 0 any that is free; None: it is not spoken.
        lerobot_port: of lerobot's asynchronous inference (gRPC), whose messages are pickles; the same.
        embodiment: whose observations those of a client are that names none.
        token: what clients must show (``Authorization: Bearer ...``, ``Api-Key ...``, or as the password in
            ``ws://any:TOKEN@host``); empty: none.
        open_to_all: listen where others can reach it without a token all the same.
        tls_cert, tls_key: PEM files; with them the server speaks TLS only.
        max_message_bytes: larger messages close their connection.
        max_sessions: clients at once.
        max_batch: most observations that the policy is asked about at once.
        idle_s: a client that sends no whole message, or takes no answer, for so long is let go.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    gr00t_port: int | None = None
    lerobot_port: int | None = None
    embodiment: str | None = None
    token: str = ""
    open_to_all: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_message_bytes: int = 16 << 20
    max_sessions: int = 64
    max_batch: int = 32
    idle_s: float = 300.0

    def __post_init__(self) -> None:
        for name in ("port", "gr00t_port", "lerobot_port"):
            port = getattr(self, name)
            if port is not None and not 0 <= port < 1 << 16:
                raise ConfigError(f"{name} is {port}; expected 0 .. 65535.")
        if min(self.max_message_bytes, self.max_sessions, self.max_batch) < 1 or not self.idle_s > 0:
            raise ConfigError(
                f"max_message_bytes {self.max_message_bytes}, max_sessions {self.max_sessions}, max_batch "
                f"{self.max_batch} and idle_s {self.idle_s} must be above 0."
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs both files: the certificate and its key.")
        if not is_loopback(self.host) and not self.token and not self.open_to_all:
            raise ConfigError(
                f"Others can reach {self.host}, and whoever does commands the policy: give a token, or say "
                "explicitly that it is open to all."
            )

        self._check_others()

    def _check_others(self) -> None:
        """What the protocols beside the websockets cannot do must not be silently left out."""
        spoken = [n for n in ("gr00t_port", "lerobot_port") if getattr(self, n) is not None]
        if spoken and self.tls_cert is not None:
            raise ConfigError(f"{' and '.join(spoken)}: these protocols have no TLS; serve them apart.")
        if self.lerobot_port is None:
            return
        if self.token:
            raise ConfigError("lerobot's client cannot show a token: serve it apart, without one.")
        if not is_loopback(self.host):
            raise ConfigError(
                f"lerobot_port: its messages are pickles and its client shows no token, so it is served on "
                f"this machine alone, not on {self.host}: bring the client's port here by ssh -L."
            )

    def tls_context(self) -> ssl.SSLContext | None:
        """Made of the two files; None without them, :class:`ConfigError` where they are of no use."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.tls_cert, self.tls_key)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"Cannot use {self.tls_cert} with {self.tls_key} for TLS: {error}.") from error
        return context


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
