import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla.errors import StoreError, UnknownNameError
from vla.eval.records import EpisodeKey, EpisodeRecord, RecordFile, read_records


def record(seed: int = 0, **changes: object) -> EpisodeRecord:
    values = {
        "suite": "s", "key": EpisodeKey(task="pick", embodiment="arm", seed=seed), "instruction": "lift “it”",
        "success": True, "wrong": False, "steps": 12, "time_to_success_s": 1.2, "latency_mean_s": 0.01,
        "latency_p95_s": 0.02, "unknown_words": ("it",), "safety": {"range": 2},
        "target_error_m": {"0": 0.01},
    }  # fmt: skip
    return EpisodeRecord(**{**values, **changes})  # type: ignore[arg-type]


@settings(deadline=None)
@given(
    seed=st.integers(0, 10**6),
    text=st.text(),
    error=st.none() | st.floats(0, 1),
    variant=st.sampled_from(["base", "swapped"]),
)
def test_json_and_back_is_the_same_record(seed: int, text: str, error: float | None, variant: str) -> None:
    before = record(seed, instruction=text, target_error_t0_m=error)
    before = replace(before, key=replace(before.key, variant=variant))
    assert EpisodeRecord.from_json(json.loads(json.dumps(before.to_json()))) == before


def test_records_are_on_disk_before_the_file_is_closed(tmp_path: Path) -> None:
    with RecordFile(tmp_path / "r.jsonl") as file:
        file.append(record(1))
        assert [r.key.seed for r in read_records(tmp_path / "r.jsonl")] == [1]


def test_a_half_written_last_line_is_cut_off_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "r.jsonl"
    with RecordFile(path) as file:
        file.append(record(1))
        file.append(record(2))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with RecordFile(path) as file:
        assert file.finished == {record(1).key}
        file.append(record(2))
    assert "half written" in caplog.text
    assert path.read_bytes() == whole


def test_reading_alone_does_not_touch_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"half": ')
    assert read_records(path) == []
    assert path.read_text() == '{"half": '


def test_damage_inside_the_file_raises_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("{]\n" + json.dumps(record(1).to_json()) + "\n")
    with pytest.raises(StoreError, match="line 1"):
        read_records(path)


def test_an_unknown_or_missing_key_raises() -> None:
    data = record().to_json()
    with pytest.raises(UnknownNameError, match="'success'"):
        EpisodeRecord.from_json({**data, "sucess": True})
    del data["steps"]
    with pytest.raises(StoreError, match="steps"):
        EpisodeRecord.from_json(data)


def test_records_written_before_words_were_kept_are_read() -> None:
    data = record().to_json()
    assert data.pop("unknown_words") == ("it",)
    assert EpisodeRecord.from_json(data) == record(unknown_words=())


def test_the_last_record_of_an_episode_counts_and_crashes_are_not_finished(tmp_path: Path) -> None:
    key = record(1).key
    with RecordFile(tmp_path / "r.jsonl") as file:
        file.append(EpisodeRecord.crashed("s", key, "it broke"))
        assert file.finished == set()
        file.append(record(1))
        assert file.finished == {key}
    assert [r.error for r in read_records(tmp_path / "r.jsonl")] == [""]


def test_conditions_name_what_is_not_plain() -> None:
    key = EpisodeKey(task="pick", embodiment="arm", seed=3)
    assert key.condition == "base"
    changed = replace(key, variant="swapped", wording="heldout", ablation="blank")
    assert changed.condition == "swapped heldout blank"
    assert changed.label == "pick-arm-swapped-heldout-blank-3"
