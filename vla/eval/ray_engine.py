"""The same groups on a Ray cluster: many machines in place of this one's processes (extra ``ray``).

A worker is a Ray actor with one CPU. It is given JSON and answers in msgpack: records, and the films that it
made. A machine of the cluster needs this package, the suite, and the policy under the same path.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from vla import registry
from vla.control.policies import contract_of
from vla.errors import ConfigError, ContractError, EnvError
from vla.eval.grid import EvalConfig
from vla.eval.groups import Group, Queue
from vla.eval.records import EpisodeRecord
from vla.eval.runners import UNFIT, GroupRunner
from vla.eval.workers import one_thread

LOG = logging.getLogger(__name__)
#: Of a cluster on this machine: what passes through is small. Ray's least is 75 MiB.
_OBJECT_STORE_BYTES = 80 << 20


class RayWorker:
    """An actor's life: load when told to, then run a group a call.

    Args:
        config: of the evaluation, JSON.
        weights_sha256: of the policy that was checked; another one is refused.
    """

    def __init__(self, config: str, weights_sha256: str) -> None:
        self._config, self._weights = EvalConfig.from_json(json.loads(config)), weights_sha256
        self._folder = tempfile.TemporaryDirectory(prefix="vla-eval-")
        self._runner: GroupRunner | None = None

    def start(self) -> bytes:
        """Nothing, or why this worker cannot run the evaluation (``refused``)."""
        os.environ.setdefault("LP_NUM_THREADS", "0")
        try:
            runner = GroupRunner(self._config, Path(self._folder.name), registry.suite(self._config.suite))
            contract = None if runner.policy is None else contract_of(runner.policy)
            found = "" if contract is None else contract.weights_sha256
            if found != self._weights:
                raise ContractError(
                    f"Policy {self._config.policy!r} is another one on {os.uname().nodename}: weights "
                    f"{found!r}, not {self._weights!r}. Copy one directory to every machine of the cluster."
                )
        except Exception as error:  # noqa: BLE001  # process edge: told to the master, which stops the run
            return _packed(refused=f"{type(error).__name__}: {error}")
        self._runner = runner
        return _packed()

    def run(self, group: str) -> bytes:
        """``records`` of a group (JSON) and ``files`` made beside (name -> bytes), or ``refused``."""
        assert self._runner is not None
        try:
            records = list(self._runner.run(Group.from_json(json.loads(group))))
        except UNFIT as error:
            return _packed(refused=f"{type(error).__name__}: {error}")
        root = Path(self._folder.name)
        files = {}
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            files[path.relative_to(root).as_posix()] = path.read_bytes()
            path.unlink()
        return _packed(records=[record.to_json() for record in records], files=files)


def run_on_ray(
    config: EvalConfig, out: Path, groups: Sequence[Group], weights_sha256: str
) -> Generator[EpisodeRecord, None, None]:
    """Hand out groups until every episode has a record; closing the generator ends the workers.

    A connection to Ray that is there already is used, and left open.

    Args:
        config: resolved; ``cluster`` says which one to join, else one is started here with ``workers`` CPUs.
        out: run directory; films come back to it.
        groups: what is to be run.
        weights_sha256: of the policy; empty where it has none.

    Raises:
        ConfigError: Ray is not installed.
        EnvError: no such cluster, or a worker stopped the run.
    """
    ray = _import_ray()
    was_there = ray.is_initialized()
    if not was_there:
        _join(ray, config)
    actor = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(RayWorker)
    queue, workers, asked = Queue(groups, handful=1), dict[int, Any](), dict[Any, tuple[int, list[Group]]]()

    def start(index: int) -> None:
        workers[index] = actor.remote(json.dumps(config.to_json()), weights_sha256)
        asked[workers[index].start.remote()] = index, []

    try:
        for index in range(min(config.workers, len(groups))):
            start(index)
        while asked:
            (ready, *_), _ = ray.wait(list(asked), num_returns=1)
            index, pending = asked.pop(ready)
            try:
                answer = msgpack.unpackb(ray.get(ready))
            except ray.exceptions.RayActorError as error:
                yield from _bury(index, pending, str(error).splitlines()[0], queue, config)
                del workers[index]
                if len(queue):
                    start(index)
                continue
            if "refused" in answer:
                raise EnvError(f"A worker stopped the run: {answer['refused']}")
            for name, content in answer.get("files", {}).items():
                path = out / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            yield from (EpisodeRecord.from_json(record) for record in answer.get("records", []))
            if taken := queue.take(index):
                asked[workers[index].run.remote(json.dumps(taken[0].to_json()))] = index, taken
            else:
                ray.kill(workers.pop(index))
    finally:
        for worker in workers.values():
            ray.kill(worker)
        if not was_there:
            ray.shutdown()


def _bury(
    index: int, pending: list[Group], why: str, queue: Queue, config: EvalConfig
) -> Iterator[EpisodeRecord]:
    """A worker died: what it was at is run once more, then recorded as crashed."""
    if not pending:
        raise EnvError(f"Worker {index} died before it ran anything: {why}")
    LOG.warning("Worker %d died in %s; it is replaced: %s", index, pending[0].label, why)
    given_up = queue.bury(pending)
    if given_up is not None:
        yield EpisodeRecord.crashed(config.suite, given_up, f"the worker died twice: {why}")


def _packed(**content: Any) -> bytes:
    return msgpack.packb(content)  # type: ignore[return-value]


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError(
            "The engine 'ray' needs Ray, which is not installed: pip install 'vla[ray]', or use the engine "
            "'processes'."
        ) from None
    return ray


def _join(ray: Any, config: EvalConfig) -> None:
    """Connect to the cluster that is named, or start one here."""
    here: dict[str, Any] = {
        "num_cpus": config.workers,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    where: dict[str, Any] = {"address": config.cluster} if config.cluster else here
    try:
        with one_thread():  # what is started here inherits it
            ray.init(**where, logging_level=logging.WARNING, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EnvError(
            f"No Ray cluster at {config.cluster or 'this machine'}: {error}. Start one with "
            "'ray start --head', or leave out the address to use this machine alone."
        ) from error
