"""openpi's own client behind a pipe; runs in its own virtual environment, started by scripts/interop.py.

usage: python openpi_side.py URL

Standard input and output carry msgpack: a flat observation in, ``{"ok": answer}`` or ``{"error": text}`` out.
"""

import sys

from openpi_client import msgpack_numpy
from openpi_client.websocket_client_policy import WebsocketClientPolicy

policy = WebsocketClientPolicy(sys.argv[1])
packer = msgpack_numpy.Packer()
unpacker = msgpack_numpy.Unpacker(sys.stdin.buffer, read_size=1)


def say(value: object) -> None:
    sys.stdout.buffer.write(packer.pack(value))
    sys.stdout.buffer.flush()


say({"ok": policy.get_server_metadata()["keys"]})
for observation in unpacker:
    try:
        say({"ok": policy.infer(observation)})
    except RuntimeError as error:
        say({"error": str(error)})
