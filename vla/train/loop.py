"""The training loop: from a configuration to a policy directory.

<out>/run.json         configuration, versions, git state, what learns in each stage
      contract.json    what the policy will promise, without weights
      metrics.jsonl    a line at the first step, every ``log_every`` steps, and at the last
      checkpoints/     everything needed to go on exactly
      judged/          evaluations at checkpoints, where the configuration asks for them
      policy/          the averaged weights with their contract, renewed at every checkpoint
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vla.contract import PolicyContract
from vla.errors import CheckpointError
from vla.files import exclusive, read_json, write_json
from vla.models.net_config import PolicyNetConfig
from vla.models.policy_net import PolicyNet
from vla.models.saving import save_policy
from vla.train.checkpoint import list_checkpoints
from vla.train.config import TrainConfig
from vla.train.cotraining import build_cotraining, check_questions, describe_questions
from vla.train.examples import example_source
from vla.train.host import auto_num_processes, pick_device, prepare_process
from vla.train.judging import Judge
from vla.train.processes import ProcessGroup, join_torchrun, run_with_helpers, under_torchrun
from vla.train.record import MetricsLog, describe_run, read_begun, record_stages, write_record
from vla.train.setup import (
    batch_source,
    check_data,
    close_data,
    data_notes,
    describe_data,
    draft_contract,
    ensure_demonstrations,
    open_data,
)
from vla.train.start import load_start, start_from, start_notes
from vla.train.trainer import Trainer

CONTRACT_FILE = "contract.json"

#: Called by the leading process with (policy directory, step, whether it is the last) after each checkpoint;
#: its time is not charged to the budget. What it returns is added to the next line of metrics.
CheckpointHook = Callable[[Path, int, bool], dict[str, float] | None]


def train(
    config: TrainConfig, out: str | Path, *, resume: bool = False, on_checkpoint: CheckpointHook | None = None
) -> Path:
    """Run to the end of the budget, or to Ctrl-C; returns the policy directory.

    Args:
        config: what to do.
        out: run directory.
        resume: go on from the newest checkpoint there.
        on_checkpoint: see :data:`CheckpointHook`; None: the evaluation that ``config.judge`` asks for.
    """
    out = Path(out)
    if on_checkpoint is None and config.judge is not None:
        on_checkpoint = Judge(config.judge, out)
    device = pick_device(config.device)
    if under_torchrun():
        group = join_torchrun(device)
        try:
            with exclusive(out, "training") if group.leads else nullcontext():
                if group.leads:
                    _prepare(config, out, resume)
                group.barrier()
                return _work(group, config, out, resume, on_checkpoint)
        finally:
            group.close()
    with exclusive(out, "training"):
        _prepare(config, out, resume)
        size = config.num_processes or auto_num_processes(device)
        while config.optim.batch_size % size:
            size -= 1
        return run_with_helpers(_work, size, (config, out, resume), leader_args=(on_checkpoint,))


def _prepare(config: TrainConfig, out: Path, resume: bool) -> None:
    """Write the run's record and contract, or on resuming check that its data are those it began with.

    Nothing is written before the data are accepted.
    """
    began = read_begun(config, out, resume=resume) is not None
    if config.judge is not None:
        config.judge.check()
    if not began:
        ensure_demonstrations(config.data)
    sources = open_data(config.data)
    try:
        if began:
            check_data(config.data, sources, _read_contract(out))
            return
        notes = data_notes(config, sources)
        for note in notes:
            tqdm.write(f"note: {note}")
        facts = {"data": describe_data(config.data, sources), "data_notes": notes}
        if config.cotrain is not None:
            facts["questions"] = describe_questions(config, sources)
        described = describe_run(config)
        contract = draft_contract(config, sources, {**described, **facts})
        if config.init_from is not None:
            load_start(config.init_from, contract)
            for note in start_notes(config.init_from, contract):
                tqdm.write(f"note: {note}")
        write_record(out, described)
        write_json(out / CONTRACT_FILE, contract.to_json())
    finally:
        close_data(sources)


def _read_contract(out: Path) -> PolicyContract:
    remedy = "Start a new run directory; a policy already in this one stays usable."
    return PolicyContract.from_json(read_json(out / CONTRACT_FILE, CheckpointError, remedy))


def _work(
    group: ProcessGroup,
    config: TrainConfig,
    out: Path,
    resume: bool,
    on_checkpoint: CheckpointHook | None = None,
) -> Path:
    """One process's whole run."""
    device = pick_device(config.device)
    prepare_process(device)
    contract = _read_contract(out)
    sources = open_data(config.data)
    check_data(config.data, sources, contract)  # every process must learn from the same
    check_questions(config, sources, contract)
    torch.manual_seed(config.seed)  # initial weights: the same in every process
    net = PolicyNet(PolicyNetConfig.from_json(contract.network))
    if config.init_from is not None:
        start_from(net, config.init_from, contract)
    trainer = Trainer(
        net,
        config,
        source=batch_source(config, sources, contract, group),
        camera_roles=contract.camera_roles,
        embodiments=sorted(contract.embodiments),
        device=device,
        group=group,
        cotraining=build_cotraining(config, net, group),
        examples=example_source(config, sources, contract),
    )
    if group.leads:
        stages = trainer.describe_stages()
        record_stages(out, stages)
        for stage in stages:
            tqdm.write(_stage_line(stage))
    if resume:
        found = list_checkpoints(out / "checkpoints")
        if found:
            trainer.load(found[-1])
        elif group.leads:
            tqdm.write(f"No checkpoint in {out}: starting from the first step.")
    group.barrier()
    try:
        if group.leads:
            _lead(trainer, contract, out, on_checkpoint)
        else:
            while not trainer.finished and not trainer.step(share=0.0)["done"]:
                pass
    finally:
        close_data(sources)
    return out / "policy"


def _lead(
    trainer: Trainer, contract: PolicyContract, out: Path, on_checkpoint: CheckpointHook | None
) -> None:
    """Step, log, and write files, until the budget is used up or somebody presses Ctrl-C."""
    config = trainer.config
    log = MetricsLog(out, from_step=trainer.step_index)
    recent: deque[dict[str, float]] = deque(maxlen=config.log_every)
    bar = tqdm(total=100, unit="%", disable=None, bar_format="{percentage:3.0f}%|{bar}| {elapsed} {postfix}")
    saved_at, extra, done = trainer.minutes, {}, trainer.finished
    first = trainer.step_index + 1
    with _ctrl_c() as interrupted:
        while not done:
            began = time.perf_counter()
            metrics = trainer.step(share=trainer.share, stop=interrupted.is_set())
            trainer.minutes += (time.perf_counter() - began) / 60
            recent.append({**metrics, "seconds": time.perf_counter() - began})
            done = bool(metrics["done"])
            stage_ends = trainer.between_stages
            begins = trainer.step_index == first
            if trainer.step_index % config.log_every == 0 or begins or done or stage_ends:
                row = _summary(trainer, recent)
                log.write({**row, **extra})
                extra = {}
                if begins or done:
                    tqdm.write(f"step {trainer.step_index}: loss {row['loss']:.3f}")
                bar.update(100 * row["share"] - bar.n)
                bar.set_postfix_str(
                    f"step {trainer.step_index}  loss {row['loss']:.3f}  "
                    f"target {row['target_approach_cm']:.1f} cm  "
                    f"{row['samples_per_s']:.0f} samples/s"
                )
            if done or stage_ends or trainer.minutes - saved_at >= config.checkpoint_minutes:
                saved_at = trainer.minutes
                trainer.save(out / "checkpoints")
                _export(trainer, contract, out)
                if on_checkpoint is not None and not interrupted.is_set():
                    extra = on_checkpoint(out / "policy", trainer.step_index, done) or {}
        if extra:
            log.write({"step": trainer.step_index, **extra})
    bar.close()
    if interrupted.is_set():
        tqdm.write(f"Stopped at step {trainer.step_index}; resume to go on. Policy so far: {out / 'policy'}")


def _export(trainer: Trainer, contract: PolicyContract, out: Path) -> None:
    training = {
        "steps": trainer.step_index,
        "minutes": round(trainer.minutes, 3),
        "cpu_minutes": round(trainer.cpu_minutes, 3),
        "num_processes": trainer.group.size,
        "finished": trainer.finished,
    }
    data = contract.to_json()
    data["provenance"] = {**contract.provenance, "training": training}
    save_policy(out / "policy", trainer.averaged_weights(), PolicyContract.from_json(data))


def _summary(trainer: Trainer, recent: deque[dict[str, float]]) -> dict[str, float]:
    """Means over the recent steps (NaN where no step knew), and where the run stands."""
    row: dict[str, float] = {}
    for key in recent[-1]:
        values = np.array([metrics.get(key, np.nan) for metrics in recent])
        known = values[np.isfinite(values)]
        row[key] = float(known.mean()) if len(known) else float("nan")
    seconds = row.pop("seconds")
    row.pop("done")
    return {
        "step": trainer.step_index,
        **row,
        "stage": trainer.stage_index,
        "share": trainer.run_share,
        "samples_per_s": trainer.config.optim.batch_size / seconds,
        "minutes": trainer.minutes,
        "cpu_minutes": trainer.cpu_minutes,
    }


def _stage_line(stage: dict[str, Any]) -> str:
    parts = [f"{part} {learn:,} of {total:,}" for part, (learn, total) in stage["parts"].items() if learn]
    learning, frozen = f"{stage['learning']:,}", f"{stage['frozen']:,}"
    return f"stage {stage['name']}: {learning} weights learn ({', '.join(parts)}), {frozen} do not"


@contextmanager
def _ctrl_c() -> Iterator[threading.Event]:
    """Ctrl-C sets the event, so that the step in progress ends well; a second one raises."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def hear(_number: int, _frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
