"""Evaluation: the grid of episodes through parallel workers, to records, a summary and tables.

A run directory holds ``config.json``, ``records.jsonl`` (one line an episode, appended as they end),
``summary.json``, ``provenance.json`` (every session that ran episodes) and ``videos/``. The same call on
the same directory goes on where the last one stopped; two at once are refused.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vla import registry
from vla.control.policies import EXECUTION_HORIZON, PolicySpec, check_contract, contract_of, policy_facts
from vla.data.recorder import ensure_store
from vla.errors import ConfigError, EnvError
from vla.eval.coverage import covered
from vla.eval.grid import EvalConfig, plan, recall_config, remember_config
from vla.eval.groups import Group, grouped
from vla.eval.intervals import Rate
from vla.eval.provenance import code_versions, recall_sessions, remember_session
from vla.eval.ray_engine import run_on_ray
from vla.eval.records import EpisodeKey, EpisodeRecord, RecordFile, read_records
from vla.eval.runners import GroupRunner, make_env
from vla.eval.summary import Summary, summarise
from vla.eval.workers import run_in_processes
from vla.files import exclusive, write_text
from vla.interfaces import Suite, heldout_embodiments_of
from vla.report.tables import summary_text

LOG = logging.getLogger(__name__)
#: Short enough for 80 columns with the rate and its interval behind it.
_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
RECORDS, CONFIG, SUMMARY, PROVENANCE = "records.jsonl", "config.json", "summary.json", "provenance.json"


def evaluate(config: EvalConfig, out: str | Path, *, progress: bool = True) -> Summary:
    """Run what is missing of the evaluation in ``out`` and summarise all of it.

    Ctrl-C ends the workers, writes the summary of what is there and raises KeyboardInterrupt; the same
    call resumes.

    Raises:
        UnknownNameError: no such suite, task, arm, policy or argument.
        ContractError, IncompatibleError: the policy must not drive one of the arms; nothing was run.
        ConfigError: ``out`` holds an evaluation with other settings, or a damaged one.
        EnvError: ``max_errors`` episodes crashed, or a worker found that the policy does not fit an arm.
        VlaError: another process is evaluating in ``out``.
    """
    out = Path(out)
    suite = registry.suite(config.suite)
    config, keys, facts = _meet(config, suite)
    with exclusive(out, "evaluating"):
        return _evaluate(config, facts, out, suite, keys, progress)


def _evaluate(
    config: EvalConfig,
    policy: Mapping[str, Any],
    out: Path,
    suite: Suite,
    keys: list[EpisodeKey],
    progress: bool,
) -> Summary:
    """:func:`evaluate`, once the configuration is settled and ``out`` is ours."""
    out.mkdir(parents=True, exist_ok=True)
    remember_config(config, out / CONFIG, policy.get("weights_sha256", ""))
    with RecordFile(out / RECORDS) as file:
        todo = [key for key in keys if key not in file.finished]
        if len(todo) < len(keys):
            LOG.warning("%s: %d of %d episodes are there already.", out, len(keys) - len(todo), len(keys))
        groups = grouped(keys, todo, batch=config.batch or 1, first_seed=config.first_seed)
        if todo and config.record:
            ensure_store(config.record, "vla.eval")
        if todo:
            remember_session(out / PROVENANCE, len(file.records), policy)
        try:
            source = _start(config, out, suite, groups, policy.get("weights_sha256", ""))
            _run_all(source, len(todo), file, config.max_errors, progress)
        finally:
            summary = write_summary(config, out, file.records, keys)
    return summary


def load_summary(out: str | Path) -> tuple[EvalConfig, list[EpisodeRecord], Summary]:
    """Configuration, records and summary of a run directory, from its records."""
    out = Path(out)
    if not (out / CONFIG).exists():
        raise EnvError(f"{out} holds no evaluation (no {CONFIG}): give the directory that `vla eval` wrote.")
    config = recall_config(out / CONFIG)
    keys = plan(config, registry.suite(config.suite))
    records = _wanted(read_records(out / RECORDS), keys)
    return config, records, _summarise(config, records, keys, out)


def write_summary(
    config: EvalConfig, out: Path, records: list[EpisodeRecord], keys: list[EpisodeKey]
) -> Summary:
    """``summary.json`` (numbers) and ``summary.txt`` (the tables) of the planned episodes."""
    summary = _summarise(config, _wanted(records, keys), keys, out)
    write_text(out / SUMMARY, json.dumps(summary.to_json(), indent=2, allow_nan=False) + "\n")
    write_text(out / "summary.txt", summary_text(summary) + "\n")
    return summary


def _wanted(records: list[EpisodeRecord], keys: list[EpisodeKey]) -> list[EpisodeRecord]:
    """The records of the planned episodes, in the order of the plan: tasks and arms as asked for."""
    recorded = {record.key: record for record in records}
    return [recorded[key] for key in keys if key in recorded]


def _summarise(
    config: EvalConfig, records: list[EpisodeRecord], keys: list[EpisodeKey], out: Path
) -> Summary:
    suite: Any = registry.suite(config.suite)
    return summarise(
        records,
        suite=config.suite,
        policy=config.policy,
        num_planned=len(keys),
        code_versions=code_versions(recall_sessions(out / PROVENANCE)),
        heldout_arms=heldout_embodiments_of(suite),
        levels={name: suite.groups[name] for name in getattr(suite, "levels", ())},
    )


def _meet(config: EvalConfig, suite: Suite) -> tuple[EvalConfig, list[EpisodeKey], dict[str, Any]]:
    """Check the policy against every arm before anything runs; settle what is left to its contract.

    Returns:
        The settled configuration, its episodes, and what the policy says of itself (nothing where it has no
        contract).
    """
    spec = PolicySpec.parse(config.policy)
    policy = None if spec.is_bound else spec.build()
    contract = None if policy is None else contract_of(policy)
    if policy is None or contract is None:
        settled = replace(
            config,
            execution_horizon=config.execution_horizon or EXECUTION_HORIZON,
            batch=_settled_batch(config, spec),
        )
        if config.audit == "short":  # what is scripted or random has nothing to be grounded
            settled = replace(settled, audit="off")
        return settled, plan(settled, suite), {}
    resolved = replace(
        covered(config, suite, contract),
        image_size=config.image_size or contract.image_size,
        execution_horizon=config.execution_horizon or contract.execution_horizon,
        batch=_settled_batch(config, spec),
    )
    keys = plan(resolved, suite)
    for task, arm in {key.embodiment: (key.task, key.embodiment) for key in keys}.values():
        env = make_env(suite, resolved, task, arm)
        try:
            check_contract(policy, env.embodiment)
        finally:
            env.close()
    return resolved, keys, policy_facts(policy)


def _settled_batch(config: EvalConfig, spec: PolicySpec) -> int:
    if spec.is_bound and (config.batch or 1) > 1:
        raise ConfigError(
            f"Policy {config.policy!r} is made anew for each scene and answers for one: batch 1, not "
            f"{config.batch}."
        )
    return config.batch or 1


def _start(
    config: EvalConfig, out: Path, suite: Suite, groups: list[Group], weights_sha256: str
) -> Generator[EpisodeRecord, None, None]:
    if config.engine == "ray":
        return run_on_ray(config, out, groups, weights_sha256)
    if config.workers == 0:
        return _in_process(config, out, suite, groups)
    return run_in_processes(config, out, groups)


def _run_all(
    source: Generator[EpisodeRecord, None, None],
    total: int,
    file: RecordFile,
    max_errors: int,
    progress: bool,
) -> None:
    """Write each record as it comes, and stop when too many are crashes."""
    rate, errors = Rate(0, 0), 0
    # None: no bar where standard error is no terminal, in a log file it would be one endless line
    hidden = None if progress else True
    bar = tqdm(total=total, disable=hidden, dynamic_ncols=True, bar_format=_BAR)
    try:
        for record in source:
            file.append(record)
            rate += Rate(int(record.success), 1)
            bar.set_postfix_str(f"success {rate}", refresh=False)
            bar.update()
            if record.error:
                errors += 1
                tqdm.write(f"crashed: {record.key.label}: {record.error}")
            if errors >= max_errors:
                raise EnvError(
                    f"{errors} episodes crashed, the last with: {record.error}. Mend that and run the same "
                    "command again; finished episodes are kept, crashed ones are run anew."
                )
    finally:
        bar.close()
        source.close()


def _in_process(
    config: EvalConfig, out: Path, suite: Suite, groups: list[Group]
) -> Generator[EpisodeRecord, None, None]:
    runner = GroupRunner(config, out, suite)
    try:
        for group in groups:
            yield from runner.run(group)
    finally:
        runner.close()
