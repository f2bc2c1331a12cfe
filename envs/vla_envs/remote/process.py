"""The process in which a benchmark runs, and calls to it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import weakref
from pathlib import Path
from typing import IO, Any

from vla.errors import EnvError
from vla_envs.remote.places import benchmark_python
from vla_envs.remote.serving import wire

START = Path(__file__).parent / "serving/start.py"
#: Longest wait for an answer; building a world and its first picture come out far below it.
TIMEOUT_S = 300.0
_LAST_WORDS = 4000  # characters of what a dead process said
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}


class RemoteError(EnvError):
    """What went wrong inside the benchmark's process, with the traceback from there."""

    def __init__(self, benchmark: str, kind: str, message: str, traceback: str) -> None:
        self.kind, self.traceback = kind, traceback
        lines = "".join(f"\n  | {line}" for line in traceback.rstrip().splitlines())
        super().__init__(f"{benchmark}: {kind}: {message}\nin the benchmark's own process:{lines}")


class BenchmarkProcess:
    """One benchmark, served; started by the first :meth:`call`, and again after it died.

    It ends with :meth:`close`, with this object, or with this process, whatever way that ends.

    Args:
        benchmark: whose Python runs it (see ``places``).
        worlds: module of ``serving`` that hosts it, or a Python file.
        timeout_s: longest wait for an answer; then it is ended.
    """

    def __init__(self, benchmark: str, worlds: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.benchmark, self._worlds, self._timeout_s = benchmark, worlds, timeout_s
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._end: weakref.finalize[..., Any] | None = None
        #: Counts starts: worlds of an earlier one are gone.
        self.generation = 0
        #: Versions of Python and of the benchmark's packages, once started.
        self.versions: dict[str, str] = {}

    def start(self) -> None:
        """Make sure that it runs.

        Raises:
            BenchmarkMissingError: its Python has not been made.
            EnvError: it does not start, or speaks another protocol.
            RemoteError: the benchmark cannot be imported.
        """
        if self._connection is not None:
            return
        python = benchmark_python(self.benchmark)
        ours, theirs = socket.socketpair()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed by _end
        with theirs:
            self._process = subprocess.Popen(
                [python, "-I", str(START), str(theirs.fileno()), self._worlds],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ONE_THREAD},
            )
        ours.settimeout(self._timeout_s)
        self._connection = ours
        self._end = weakref.finalize(self, _end, self._process, ours, self._said)
        self.generation += 1
        answer = self._exchange({"protocol": wire.PROTOCOL})
        if answer["protocol"] != wire.PROTOCOL:
            self.close()
            raise EnvError(
                f"The server of {self.benchmark!r} speaks protocol {answer['protocol']}, this package "
                f"{wire.PROTOCOL}: make it anew with 'scripts/setup_benchmark {self.benchmark}'."
            )
        self.versions = {"python": answer["python"], **answer["versions"]}

    def call(self, name: str, **arguments: Any) -> Any:
        """Ask for something; starts the process where there is none.

        Raises:
            RemoteError: it went wrong there; the process goes on.
            EnvError: the process died, or gave no answer in time and was ended.
        """
        self.start()
        return self._exchange({"call": name, "arguments": arguments})

    @property
    def is_running(self) -> bool:
        """Whether it was started and is not known to have died."""
        return self._connection is not None

    def close(self) -> None:
        """End it; a later call starts it again."""
        if self._end is not None:
            self._end()
        self._connection = self._process = self._said = self._end = None

    def _exchange(self, message: dict[str, Any]) -> Any:
        assert self._connection is not None
        try:
            wire.send(self._connection, message)
            answer = wire.receive(self._connection)
        except TimeoutError:
            self.close()
            raise EnvError(
                f"The process of {self.benchmark!r} gave no answer for {self._timeout_s:g} s and was ended."
            ) from None
        except (EOFError, OSError, wire.WireError) as error:
            raise self._dead(error) from error
        except BaseException:  # Ctrl-C between question and answer: the next answer would be this one's
            self.close()
            raise
        if "error" in answer:
            told = answer["error"]
            raise RemoteError(self.benchmark, told["kind"], told["message"], told["traceback"])
        return answer["value"]

    def _dead(self, error: Exception) -> EnvError:
        assert self._process is not None
        assert self._said is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace")[-_LAST_WORDS:].strip()
        self.close()
        ending = f"exit code {code}" if code is not None else f"no sense in its answer: {error}"
        return EnvError(
            f"The process of {self.benchmark!r} died ({ending}). It said last: {said or '(nothing)'}"
        )


def _end(process: subprocess.Popen[bytes], connection: socket.socket, said: IO[bytes]) -> None:
    """Close the connection, which it takes as leave; kill it where it does not go."""
    connection.close()
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    said.close()
