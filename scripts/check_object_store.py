"""Demonstrations in a bucket or on a web server: are they read as the local ones are?

usage: python scripts/check_object_store.py [--venv DIR] [--out FILE]

Makes demonstrations of the tabletop suite and a LeRobotDataset v3.0 of one of their arms, puts both into an
S3 server (moto's, on this machine, spoken to by s3fs) and behind a plain HTTP server with ranges, and
compares: every column, training windows drawn here, in a spawned and in a forked process; what was fetched
is not fetched again, what changed is; damage and what is missing are errors of ours. Prints everything as
JSON on its last line; exits with 1 where anything differs. s3fs and moto live in a virtual
environment of their own,
made on first use, which sees the packages of the Python that runs this script.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import threading
import venv
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

for _variable, _value in (("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1"), ("LP_NUM_THREADS", "0")):
    os.environ.setdefault(_variable, _value)

import numpy as np
import tyro

from vla.data.exporting import export_lerobot
from vla.data.generate import generate
from vla.data.readers import open_source
from vla.data.shards import crc32c
from vla.data.statistics import compute_statistics
from vla.data.store import EpisodeStore
from vla.data.windows import WindowConfig, WindowDataset
from vla.errors import VlaError
from vla.interfaces import Cell

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ("s3fs==2026.9.0", "moto[server]==5.2.5")
BUCKET = "demonstrations"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """Object stores against the local files.

    Args:
        venv: folder of the environment with s3fs and moto; made if need be.
        windows: drawn of each set of demonstrations.
        out: where to write the result.
    """

    venv: Path = ROOT / ".venv-object-store"
    windows: int = 64
    out: Path | None = None


def peer_python(folder: Path) -> Path:
    """The interpreter with s3fs and moto, which also sees the packages of this one; made first if need be."""
    python, stamp = folder / "bin/python", folder / "peer-stamp"
    if not stamp.is_file() or stamp.read_text() != "\n".join(REQUIREMENTS):
        print(f"installing {', '.join(REQUIREMENTS)} into {folder} (once)", file=sys.stderr)
        venv.create(folder, with_pip=True, symlinks=True)
        install = [
            str(python),
            "-m",
            "pip",
            "install",
            "-q",
            "-c",
            str(ROOT / "constraints.txt"),
            *REQUIREMENTS,
        ]
        subprocess.run(install, check=True)
        ours, site = sysconfig.get_path("purelib"), next(folder.glob("lib/python*/site-packages"))
        (site / "vla_peer.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
        stamp.write_text("\n".join(REQUIREMENTS))
    return python


class Server(ThreadingHTTPServer):
    """Takes as many connections at once as a batch of windows opens; 5 is the default."""

    request_queue_size = 512


class RangeHandler(SimpleHTTPRequestHandler):
    """Files and ranges of them, as web servers have them (this one's parent knows no ranges)."""

    def do_GET(self) -> None:
        wanted, path = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")), Path(self.place)
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        start, size = int(wanted[1]), path.stat().st_size
        end = min(int(wanted[2]), size - 1)
        if start >= size:
            self.send_error(416)
            return
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        self.wfile.write(path.read_bytes()[start : end + 1])

    @property
    def place(self) -> str:
        return self.translate_path(self.path)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def digest(dataset: WindowDataset, index: np.ndarray) -> int:
    """Checksum of everything in a batch."""
    batch, total = dataset.batch(index), 0
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        raw = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        total = crc32c(raw + total.to_bytes(4, "little"))
    return total


def compare(local: Path, url: str, num_windows: int) -> dict[str, bool]:
    """Whether what lies at a URL is what lies here."""
    here, there = open_source(local), open_source(url)
    columns = all(
        here.column(i, name).tobytes() == there.column(i, name).tobytes()
        for i in range(len(here))
        for name in here.columns(i)
    )
    ours, theirs = (WindowDataset(s, WindowConfig(), compute_statistics(s)) for s in (here, there))
    rng = np.random.default_rng(0)
    episodes = rng.integers(len(here), size=num_windows)
    steps = [rng.integers(here.episodes[e].length) for e in episodes]
    index = np.stack([episodes, steps], axis=1)
    wanted = digest(ours, index)
    found = {
        "episodes": [dataclasses.asdict(e) for e in here.episodes]
        == [dataclasses.asdict(e) for e in there.episodes],
        "columns": columns,
        "windows": digest(theirs, index) == wanted,
    }
    for how in ("spawn", "fork"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how)) as pool:
            found[f"windows in a {how}ed process"] = pool.submit(digest, theirs, index).result(120) == wanted
    here.close()
    there.close()
    return found


class Said(logging.Handler):
    """What the package has said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def fetches(self, action: Callable[[], Any]) -> list[str]:
        """Announcements of a fetch while something is done."""
        self.lines.clear()
        action()
        return [line for line in self.lines if line.startswith("Fetching ")]


def refuses(action: Callable[[], Any]) -> bool:
    """Whether it raises an error of this package."""
    try:
        action()
    except VlaError as error:
        print(f"refused as it should be: {error}", file=sys.stderr)
        return True
    return False


def check_server(base: str, work: Path, rewrite: Callable[[str], None], num_windows: int) -> dict[str, bool]:
    """Everything of one server; ``rewrite`` gives the object of that name another content of the same size."""  # noqa: E501
    said = Said()
    logging.getLogger("vla").addHandler(said)
    found: dict[str, bool] = {}
    for name in ("demos.zarr", "lerobot"):
        facts = compare(work / name, f"{base}/{name}", num_windows)
        found |= {f"{name}: {key}": good for key, good in facts.items()}
    url = f"{base}/lerobot"
    found["lerobot: not fetched twice"] = said.fetches(lambda: open_source(url).close()) == []
    rewrite("lerobot/meta/stats.json")
    renewed = said.fetches(lambda: open_source(url).close())
    found["lerobot: only what changed is fetched again"] = len(renewed) == 1 and " in 1 files " in renewed[0]
    rewrite("demos.zarr/part-00000/steps/panda/cameras/front/frames/c/0")
    with EpisodeStore.open(f"{base}/demos.zarr") as store:
        found["demos.zarr: damage is found"] = bool(store.verify())
    found["nothing there: refused"] = refuses(lambda: open_source(f"{base}/nothing"))
    logging.getLogger("vla").removeHandler(said)
    return found


def check_s3(work: Path, num_windows: int) -> dict[str, bool]:
    """Through s3fs, from a server that speaks S3."""
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line a request
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    system = fsspec.filesystem("s3")
    system.mkdir(BUCKET)
    for file in sorted(path for path in work.rglob("*") if path.is_file()):
        system.put_file(str(file), f"{BUCKET}/{file.relative_to(work)}")

    def rewrite(name: str) -> None:
        system.pipe_file(f"{BUCKET}/{name}", altered(system.cat_file(f"{BUCKET}/{name}")))

    found = check_server(f"s3://{BUCKET}", work, rewrite, num_windows)
    found["no such bucket: refused"] = refuses(lambda: open_source("s3://no-such-bucket/demos.zarr"))
    server.stop()
    return found


def check_http(work: Path, num_windows: int) -> dict[str, bool]:
    """Through fsspec's own HTTP file system, from a web server with ranges; run last, it alters the files."""
    server = Server(("127.0.0.1", 0), partial(RangeHandler, directory=str(work / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def rewrite(name: str) -> None:
        path = work / "served" / name
        path.write_bytes(altered(path.read_bytes()))
        os.utime(path, (1, 1))  # HTTP tells whole seconds

    base = f"http://127.0.0.1:{server.server_port}"
    found = check_server(base, work, rewrite, num_windows)
    server.shutdown()
    server.server_close()
    plain = Server(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(work / "served")))
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    with EpisodeStore.open(f"http://127.0.0.1:{plain.server_port}/demos.zarr") as store:
        found["a server without ranges: refused"] = refuses(lambda: store.frames(0, "front", [0]))
    plain.shutdown()
    plain.server_close()
    found["no server: refused"] = refuses(lambda: open_source(f"{base}/demos.zarr"))
    return found


def altered(raw: bytes) -> bytes:
    """The same but for one bit, past an index and in white space or numbers of a text."""
    data, place = bytearray(raw), len(raw) - 1 if raw.endswith(b"\n") else len(raw) * 2 // 3
    if raw[:1] == b"{":  # JSON stays JSON
        place = max(i for i, byte in enumerate(raw) if byte in b"12345678")
    data[place] ^= 1
    return bytes(data)


def main() -> int:
    flags = tyro.cli(Check, description=__doc__)
    if not all(importlib.util.find_spec(name) for name in ("s3fs", "moto")):
        python = str(peer_python(flags.venv))
        os.execv(python, [python, str(Path(__file__).resolve()), *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        os.environ["VLA_CACHE"], work = cache, Path(folder)
        cells = [Cell(task="place", embodiment=arm) for arm in ("panda", "ur5e")]
        generate("tabletop", cells, 2, work / "demos.zarr", image_size=64, num_workers=1, progress=False)
        with EpisodeStore.open(work / "demos.zarr") as store:
            export_lerobot(store, work / "lerobot", embodiment="panda")
            num_episodes, num_steps = len(store), sum(info.length for info in store.episodes)
        found = {"s3": check_s3(work, flags.windows)}
        subprocess.run(["cp", "-r", str(work), f"{cache}/copy"], check=True)
        Path(f"{cache}/copy").rename(work / "served")
        found["http"] = check_http(work, flags.windows)
    wrong = [
        f"{server}: {what}" for server, facts in found.items() for what, good in facts.items() if not good
    ]
    count = sum(len(facts) for facts in found.values())
    result = {
        "claim": "our store read in place and a LeRobot folder fetched from S3 (s3fs, moto's server) and HTTP",  # noqa: E501
        "target": "columns and training windows as from the local files, also in spawned and forked "
        "processes; nothing fetched twice; damage and absence refused",
        "measured": f"{count - len(wrong)} of {count} checks hold ({num_episodes} episodes, {num_steps} "
        f"steps, {flags.windows} windows of each)",
        "command": "python scripts/check_object_store.py --out docs/results/object_store.json",
        "versions": {
            name: importlib.metadata.version(name) for name in ("fsspec", "s3fs", "moto", "aiohttp")
        },
        "checks": found,
    }
    if flags.out is not None:
        flags.out.write_text(json.dumps(result, indent=1) + "\n")
    for what in wrong:
        print(f"check_object_store: {what}: does not hold", file=sys.stderr)
    print(json.dumps(result))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
