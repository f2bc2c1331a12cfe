"""``vla console``: a page before an arm: cameras, a line to say things, a stop button, a recording switch."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass

from vla.cli.flags import parse
from vla.cli.session_flags import SessionFlags


@dataclass(frozen=True, kw_only=True)
class Console(SessionFlags):
    """Speak to an arm from a page in the browser; the page is served on loopback, to whoever has its address.
    A switch on it records into the store; nothing can be recorded without one.

    Args:
        listen: loopback address of the page.
        listen_port: of the page; 0 takes one that is free.
        open: open the page in a browser, where there is one.
    """

    listen: str = "127.0.0.1"
    listen_port: int = 8321
    open: bool = True


def run(argv: Sequence[str]) -> int:
    flags = parse(Console, "console", argv)
    from vla.console.serving import serve_console

    config = flags.session(realtime=True)

    def ready(url: str) -> None:
        print(f"console: {url}\nCtrl-C, or 'quit' on the page, ends it.", flush=True)
        if flags.open:
            webbrowser.open(url)

    result = serve_console(config, host=flags.listen, port=flags.listen_port, ready=ready)
    print(result)
    return 0
