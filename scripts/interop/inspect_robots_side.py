"""The /act and GR00T clients of inspect-robots' plugins behind a pipe; run in their own Python by interop.py.

usage: python inspect_robots_side.py act URL
       python inspect_robots_side.py gr00t HOST PORT

Both are the plugins' own transports (``inspect_robots_yam``, ``inspect_robots_unitree_g1``), with what they
encode and decode with. Standard input and output carry messages of ``vla.serve.wire`` behind their size: a
request in, ``{"ok": answer}`` or ``{"error": text}`` out.
"""

import struct
import sys
from pathlib import Path

import requests
from inspect_robots_unitree_g1.config import Gr00tConfig
from inspect_robots_unitree_g1.policy import _default_infer
from inspect_robots_yam.policy import _default_post

sys.path.insert(1, str(Path(__file__).parents[2]))

from vla.serve.wire import pack, unpack

kind, *where = sys.argv[1:]
if kind == "gr00t":
    infer = _default_infer(Gr00tConfig(host=where[0], port=int(where[1])))
while head := sys.stdin.buffer.read(4):
    request = unpack(sys.stdin.buffer.read(*struct.unpack(">I", head)))
    try:
        answer = infer(request) if kind == "gr00t" else _default_post(where[0], request, 30.0)
        said = {"ok": dict(answer)}
    except requests.HTTPError as error:
        said = {"error": error.response.text}
    except RuntimeError as error:
        said = {"error": str(error)}
    data = pack(said)
    sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
    sys.stdout.buffer.flush()
