"""Repairs go into a new store, say what they did, and what they repaired is gone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.check.made import LENGTH, MadeSource
from tests.data.worlds import make_arm, make_episode
from vla.data.archive import VideoCodec
from vla.data.check import KINDS, CheckConfig, check
from vla.data.codec import JpegCodec
from vla.data.fix import _OF_ALL, _OF_STEPS, FixConfig, Fixed, fix
from vla.data.readers import open_source
from vla.data.source import read_episode
from vla.data.store import EpisodeStore
from vla.data.stretches import Stretches
from vla.errors import ConfigError, DatasetError, StoreError, UnknownNameError

NUMBERS = CheckConfig(frames="none")


def repaired(source: MadeSource, out: Path, **settings: object) -> tuple[Fixed, EpisodeStore]:
    config = FixConfig(**{"check": NUMBERS, **settings})  # type: ignore[arg-type]
    return fix(source, out, config), EpisodeStore.open(out)


def test_idle_ends_are_trimmed_and_the_rest_is_as_it_was(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.stand_still(5, 0, 14)
    before = source.index_checksum()
    fixed, store = repaired(source, tmp_path / "out", trim_idle=True)
    (change,) = fixed.changes
    assert change.kept == (12, LENGTH - 1)  # two of the idle steps are kept
    assert np.array_equal(store.column(5, "state"), source.values[5]["state"][12:])
    assert store.column(5, "time_s")[0] == 0
    assert not {"idle_start", "idle_end"} & set(check(store, NUMBERS).kinds)
    assert source.index_checksum() == before


def test_duplicates_are_left_out_but_for_the_first(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.repeat(9, of=5)
    fixed, store = repaired(source, tmp_path / "out", drop=("duplicates",))
    assert [(c.episode, c.kept) for c in fixed.changes] == [(9, None)]
    assert len(store) == 9
    assert not check(store, NUMBERS).findings


def test_damage_is_cut_to_the_longest_sound_stretch(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.pictures[2]["front"][10] = None
    source.values[4]["state"][30:, 0] += 0.4
    config = {"cut": ("frames", "jump"), "check": CheckConfig(frames="all")}
    fixed, store = repaired(source, tmp_path / "out", **config)
    assert {c.episode: c.kept for c in fixed.changes} == {2: (11, LENGTH - 1), 4: (0, 29)}
    assert not {"unreadable_frame", "jump"} & set(check(store, CheckConfig(frames="all")).kinds)


def test_what_lies_between_two_faults_is_kept(tmp_path: Path) -> None:
    source = MadeSource(count=20)
    last = LENGTH - 4
    for step in (3, last):  # one step each is off
        source.values[4]["state"][step, 0] += 0.4
        source.values[6]["action"][step, 0] = np.nan
    source.values[7]["time_s"][4:] -= 0.35
    source.values[7]["time_s"][last:] -= 0.35
    cut = ("jump", "outlier", "not_finite", "time_backwards")
    fixed, store = repaired(source, tmp_path / "out", cut=cut)
    kept = {c.episode: c.kept for c in fixed.changes}
    assert kept == {4: (4, last - 1), 6: (4, last - 1), 7: (4, last - 1)}
    assert len(store) == 20
    assert not set(cut) & set(check(store, NUMBERS).kinds)


def test_another_rate_is_reached_by_resampling(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    _, store = repaired(source, tmp_path / "out", retime_hz=5.0)
    assert store.embodiments["alpha"].control_hz == 5
    assert store.episodes[0].length == LENGTH // 2
    assert "wrong_rate" not in check(store, NUMBERS).kinds


def test_time_that_goes_back_is_stamped_anew_in_that_episode_alone(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.values[5]["time_s"] = source.values[5]["time_s"][::-1].copy()
    before = source.values[5]["time_s"].copy()
    fixed, store = repaired(source, tmp_path / "out", restamp=True)
    assert [(c.episode, c.kept, c.restamped) for c in fixed.changes] == [(5, (0, LENGTH - 1), True)]
    assert "with even time stamps: time_backwards" in str(fixed.changes[0])
    np.testing.assert_allclose(np.diff(store.column(5, "time_s")), 0.1)
    assert np.array_equal(store.column(5, "state"), source.values[5]["state"])
    assert "time_backwards" not in check(store, NUMBERS).kinds
    assert np.array_equal(source.values[5]["time_s"], before)
    with pytest.raises(ConfigError, match="choose one"):
        FixConfig(restamp=True, drop=("time_backwards",))


def test_provenance_says_what_was_done(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.stand_still(5, 0, 14)
    _, store = repaired(source, tmp_path / "out", trim_idle=True)
    assert store.provenance["fixed_from"] == "made"
    assert "episode 5: steps 12-39 of 40 kept" in store.provenance["changes"][0]
    facts = store.episodes[5].provenance["fixed"]
    assert (facts["episode"], facts["kept_steps"], facts["of"]) == (5, [12, 39], 40)
    assert store.episodes[5].provenance["seed"] == 5


def test_damage_that_would_be_kept_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.values[3]["state"][7, 0] = np.nan
    with pytest.raises(ConfigError, match=r"episode 3, step 7.*--drop damaged"):
        repaired(source, tmp_path / "out", trim_idle=True)
    assert not (tmp_path / "out").exists()
    fixed, store = repaired(source, tmp_path / "out", drop=("damaged",))
    assert [c.episode for c in fixed.changes] == [3]
    assert len(store) == 9


def test_nothing_to_do_unknown_kinds_and_an_occupied_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Nothing to repair"):
        FixConfig()
    with pytest.raises(UnknownNameError, match="idle_middle"):
        FixConfig(drop=("idle_midle",))
    with pytest.raises(UnknownNameError, match=r"for --cut 'jmp'.*Known: action_out") as refused:
        FixConfig(cut=("jmp",))
    assert {*_OF_STEPS, "frames", "damaged"} == set(refused.value.known)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(StoreError, match="not empty"):
        repaired(MadeSource(count=3), tmp_path / "out", trim_idle=True)


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    source = MadeSource(count=3)
    for i in range(3):
        source.rename(i, "")
    with pytest.raises(ConfigError, match="would be left"):
        repaired(source, tmp_path / "out", drop=("empty_instruction",))


@pytest.mark.parametrize(
    "kind", ["duplicates", "empty_instruction", "wrong_rate", "mismatch", "constant_action"]
)
def test_kinds_that_name_no_steps_cannot_be_cut(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"--cut {kind}: such findings name no steps. --cut takes .*jump"):
        FixConfig(cut=("jump", kind))


@pytest.mark.parametrize("kind", ["missing", "constant_action", "action_late", "wrong_scale"])
def test_kinds_that_concern_no_single_episode_cannot_be_dropped(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"--drop {kind}: such findings concern .* takes .*duplicates"):
        FixConfig(drop=(kind,))


def test_every_kind_of_finding_can_be_dropped_or_concerns_all() -> None:
    assert set(_OF_STEPS) | set(_OF_ALL) <= set(KINDS)
    assert not set(_OF_STEPS) & set(_OF_ALL)


def test_what_of_a_group_has_no_steps_is_not_kept_in_silence(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.values[3]["state"] = source.values[3]["state"][:-1]
    with pytest.raises(ConfigError, match=r"episode 3.*ragged.*names no steps to cut"):
        repaired(source, tmp_path / "out", cut=("damaged",))
    assert not (tmp_path / "out").exists()


def test_a_gap_is_cut_before_the_rest_is_resampled(tmp_path: Path) -> None:
    source = MadeSource(count=10)
    source.values[4]["time_s"][10:] += 5
    with pytest.raises(DatasetError, match="--cut time_gap"):
        repaired(source, tmp_path / "out", retime_hz=5.0)
    assert not (tmp_path / "out").exists()
    fixed, store = repaired(source, tmp_path / "out", retime_hz=5.0, cut=("time_gap",))
    assert store.episodes[4].length == (LENGTH - 10) // 2
    assert fixed.retimed == {"alpha": 10.0}


def test_what_cannot_be_opened_is_counted_told_of_and_noted(filled: Path, tmp_path: Path) -> None:
    log = filled / "part-00000/episodes/commits.jsonl"
    data = bytearray(log.read_bytes())
    data[200] ^= 1
    log.write_bytes(data)
    source = open_source(filled, tolerate_damage=True)
    fixed = fix(source, tmp_path / "out", FixConfig(drop=("jump",), check=NUMBERS))
    source.close()
    assert (fixed.num_episodes_before, fixed.num_episodes) == (7, 7)
    assert fixed.lost == ("part-00000: commits.jsonl: line 1 is damaged",)
    assert EpisodeStore.open(tmp_path / "out").provenance["not_opened"] == list(fixed.lost)


@pytest.mark.parametrize("settings", [{"trim_idle": True}, {"retime_hz": 5.0}, {"cut": ("jump",)}])
def test_pictures_of_our_stores_keep_every_byte(tmp_path: Path, settings: dict[str, object]) -> None:
    made = MadeSource(count=3)
    made.values[1]["state"][5:, 0] += 0.4
    with EpisodeStore.create(tmp_path / "s", embodiments=[made.arm], codec=JpegCodec(quality=70)) as source:
        for index in range(3):
            source.append(read_episode(made, index))
        fixed = fix(source, tmp_path / "out", FixConfig(check=NUMBERS, **settings))  # type: ignore[arg-type]
        before = {source.frame_reader(1, "front").fetch(t) for t in range(LENGTH)}
    store = EpisodeStore.open(tmp_path / "out")
    after = store.frame_reader(1, "front")
    assert {after.fetch(t) for t in range(len(after))} <= before
    assert (fixed.num_copied, fixed.num_encoded) == (2 * fixed.num_steps, 0)
    assert store.verify() == []


def test_only_video_that_is_cut_is_encoded_anew(tmp_path: Path) -> None:
    made = MadeSource(count=3, size=64)
    made.values[1]["state"][30:, 0] += 0.4
    with EpisodeStore.create(tmp_path / "s", embodiments=[made.arm], codec=VideoCodec()) as source:
        for index in range(3):
            source.append(read_episode(made, index))
        fixed = fix(source, tmp_path / "out", FixConfig(check=NUMBERS, cut=("jump",)))
        store = EpisodeStore.open(tmp_path / "out")
        assert store.frame_reader(2, "hand").fetch(7) == source.frame_reader(2, "hand").fetch(7)
    assert (fixed.num_copied, fixed.num_encoded) == (2 * 2 * LENGTH, 2 * 30)
    assert store.verify() == []


def test_foreign_pictures_are_encoded_at_the_quality_of_an_import(tmp_path: Path) -> None:
    fixed, store = repaired(MadeSource(count=3), tmp_path / "out", retime_hz=5.0)
    assert (fixed.num_copied, fixed.num_encoded) == (0, 2 * fixed.num_steps)
    assert store.codec == JpegCodec(quality=95)
    _, worse = repaired(MadeSource(count=3), tmp_path / "worse", retime_hz=5.0, jpeg_quality=40)
    assert worse.codec == JpegCodec(quality=40)


def test_stretches_without_changes_are_the_source() -> None:
    source = MadeSource(count=3)
    same = Stretches(source, {})
    assert [i.length for i in same.episodes] == [LENGTH] * 3
    assert np.array_equal(same.column(1, "action"), source.column(1, "action"))


def test_a_fix_that_is_stopped_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arm, rng = make_arm(), np.random.default_rng(0)
    with EpisodeStore.create(tmp_path / "s.zarr", embodiments=[arm]) as store:
        store.append(make_episode(rng, arm, length=8))
        monkeypatch.setattr(EpisodeStore, "append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fix(store, tmp_path / "out.zarr", FixConfig(drop=("short_episode",)))
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]


def test_an_instruction_is_given_to_episodes_that_have_none(tmp_path: Path) -> None:
    source = MadeSource(count=6)
    source.rename(2, "")
    source.rename(4, " ")
    fixed, store = repaired(source, tmp_path / "out", instruction="reach the square")
    assert {c.episode: c.kept for c in fixed.changes} == {2: (0, LENGTH - 1), 4: (0, LENGTH - 1)}
    assert "told 'reach the square': empty_instruction" in str(fixed.changes[0])
    said = [info.instruction for info in store.episodes]
    assert said == [
        "reach the square" if i in (2, 4) else info.instruction for i, info in enumerate(source.episodes)
    ]
    assert store.episodes[2].provenance["fixed"]["instruction_given"]


def test_an_instruction_of_white_space_or_for_what_is_dropped_is_refused() -> None:
    with pytest.raises(ConfigError, match="white space"):
        FixConfig(instruction=" ")
    with pytest.raises(ConfigError, match="choose one"):
        FixConfig(instruction="reach it", drop=("empty_instruction",))


def test_a_refusal_of_damage_is_one_sentence_after_the_other_and_fits_the_fault(tmp_path: Path) -> None:
    source = MadeSource(count=6)
    source.pictures[3]["front"][7] = None
    with pytest.raises(ConfigError, match=r"--cut frames") as refused:
        repaired(source, tmp_path / "out", trim_idle=True, check=CheckConfig(frames="all"))
    assert ".." not in str(refused.value)
    del source.values[3]["state"]
    source.pictures[3]["front"][7] = source.pictures[3]["front"][6]
    with pytest.raises(ConfigError, match=r"--drop damaged to leave such episodes out\.$"):
        repaired(source, tmp_path / "out", trim_idle=True)
