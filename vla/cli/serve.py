"""``vla serve``: a policy behind a port, for other projects' clients and our own."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vla.cli.flags import explained, parse, policy_spec
from vla.errors import ConfigError

if TYPE_CHECKING:
    from vla.serve.server import PolicyServer

LEROBOT_WARNING = """\
vla: ***********************************************************************************
vla: * --lerobot-port: lerobot's clients send PICKLES and show NO TOKEN.                 *
vla: * They are read as data, nothing in them is run, and any other class is refused;    *
vla: * but whoever has an account on this machine can ask the policy.                    *
vla: ***********************************************************************************"""


@dataclass(frozen=True)
class Serve:
    """Answer robots and simulators: openpi's protocol at /, vla-eval's at /vla-eval, OpenVLA's at POST /act.

    GET /healthz, /config (contract and keys of messages) and /metrics (Prometheus) are there besides.

    Args:
        policy: default (shipped), or a directory that vla train wrote.
        head: which of the policy's action heads decides; its default if not given.
        embodiment: arm of clients that do not say which they are.
        host: address to listen on; one that others can reach needs a token.
        port: to listen on.
        gr00t_port: also speak GR00T's protocol (ZeroMQ) there; 5555 is where its clients look.
        lerobot_port: also serve lerobot's RobotClient (gRPC) there, to this machine alone: it sends pickles,
            which are read as data and never unpickled; 8080 is where it looks.
        token_file: file with what clients must show.
        open_to_all: listen where others can reach it without a token all the same.
        tls_cert: certificate chain, PEM; with it clients say wss:// instead of ws://.
        tls_key: its key, PEM.
        max_message_mb: larger messages close their connection.
        max_sessions: clients at once.
        max_batch: most observations that the policy is asked about at once.
        idle_s: a client that says nothing for so long is let go.
    """

    policy: str = "default"
    head: str | None = None
    embodiment: Annotated[str | None, explained("each client says")] = None
    host: str = "127.0.0.1"
    port: int = 8000
    gr00t_port: Annotated[int | None, explained("off")] = None
    lerobot_port: Annotated[int | None, explained("off")] = None
    token_file: Path | None = None
    open_to_all: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_message_mb: int = 16
    max_sessions: int = 64
    max_batch: int = 32
    idle_s: float = 300.0


def run(argv: Sequence[str]) -> int:
    flags = parse(Serve, "serve", argv)
    from vla.control.policies import PolicySpec
    from vla.serve.config import ServeConfig, is_loopback
    from vla.serve.memory import keep_freed_memory
    from vla.serve.server import PolicyServer

    config = ServeConfig(
        host=flags.host,
        port=flags.port,
        gr00t_port=flags.gr00t_port,
        lerobot_port=flags.lerobot_port,
        embodiment=flags.embodiment,
        token=read_token(flags.token_file),
        open_to_all=flags.open_to_all,
        tls_cert=flags.tls_cert,
        tls_key=flags.tls_key,
        max_message_bytes=flags.max_message_mb << 20,
        max_sessions=flags.max_sessions,
        max_batch=flags.max_batch,
        idle_s=flags.idle_s,
    )
    spec = PolicySpec.parse(policy_spec(flags.policy, flags.head))
    if spec.is_bound:
        raise ConfigError(
            f"Policy {flags.policy!r} is made for one simulation and reads it: there is none here. "
            "Serve default or a directory that vla train wrote."
        )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not is_loopback(config.host) and config.tls_cert is None:
        print("vla: no TLS: whoever is on the way sees pictures, actions and the token.")
    if config.gr00t_port is not None and not is_loopback(config.host):
        print(
            "vla: GR00T's protocol has no TLS and no limit on the parts of a message: trust who reaches it."
        )
    if config.lerobot_port is not None:
        print(LEROBOT_WARNING, flush=True)
    keep_freed_memory()
    server = PolicyServer(config, spec.build)  # type: ignore[arg-type]  # the server checks what it was given
    try:
        asyncio.run(serve_until_stopped(server, flags.policy))
    finally:
        server.close()
    return 0


async def serve_until_stopped(server: PolicyServer, policy: str) -> None:
    """Serve until Ctrl-C or a request to terminate."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    arms = server.config.embodiment or ", ".join(sorted(server.offer.contract.embodiments))

    def started(url: str) -> None:
        http = url.replace("ws", "http", 1)
        print(f"{policy} for {arms}\n  openpi, vla  {url}\n  vla-eval     {url}/vla-eval")
        print(f"  OpenVLA      {http}/act (POST)")
        for name in ("gr00t", "lerobot"):
            if name in server.addresses:
                print(f"  {name:12} {server.addresses[name]}")
        print(f"  pages        {http}/healthz  /config  /metrics\nCtrl-C stops.", flush=True)

    await server.run(started, stop)
    print("stopped.")


def read_token(path: Path | None) -> str:
    """The token in a file, without the white space around it; empty without a file."""
    if path is None:
        return ""
    try:
        token = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the token: {error}.") from error
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise ConfigError(f"{path} holds no token: expected one line of printable ASCII without blanks.")
    return token
