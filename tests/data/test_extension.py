"""A store is extended only with demonstrations of the kind that it holds, by one process at a time."""

import pytest

from tests.data import worlds
from tests.data.test_generate import CELLS, SUITE
from tests.data.worlds import make_arm
from vla.data import generate as generation
from vla.data import generate_workers
from vla.data.extension import check_extension
from vla.data.generate import generate
from vla.data.record import NoiseConfig
from vla.data.store import EpisodeStore
from vla.errors import ConfigError, EnvError, IncompatibleError, VlaError
from vla.files import exclusive
from vla.interfaces import TRAIN_SEED, Cell

CELL = CELLS[:1]


@pytest.fixture
def no_workers(monkeypatch):
    """Whatever is refused is refused before a worker starts."""
    monkeypatch.setattr(generation, "workers", None)


def fill(path, *, fingerprint=worlds.FINGERPRINT, noise=None):
    """A store with one demonstration, made here."""
    cell = CELL[0]
    EpisodeStore.create(path).close()
    config = generate_workers.WorkerConfig(
        suite_name=SUITE, cells=CELL, path=str(path), image_size=64, noise=noise, versions={}
    )
    with pytest.MonkeyPatch.context() as patch, generate_workers.CellRecorder(config) as recorder:
        patch.setattr(worlds, "FINGERPRINT", fingerprint)
        assert recorder.record(generate_workers.Job(cell=0, seed=TRAIN_SEED, variant="base")), cell
    return path


def extend(path, **settings):
    settings = {"noise": None, "progress": False, **settings}
    return generate(SUITE, CELL, 4, path, num_workers=1, **settings)


def test_an_episode_says_with_which_env_and_noise_it_was_made(tmp_path):
    with EpisodeStore.open(fill(tmp_path / "s", noise=NoiseConfig(position_std=0.01))) as store:
        origin = store.episodes[0].provenance
    assert origin["fingerprint"] == worlds.FINGERPRINT
    assert origin["noise"]["position_std"] == 0.01


def test_another_image_size_is_refused_before_workers_start(tmp_path, no_workers):
    with pytest.raises(IncompatibleError, match="cameras differ"):
        extend(fill(tmp_path / "s"), image_size=32)


def test_another_arm_of_the_same_name_is_refused_before_workers_start(tmp_path, no_workers):
    EpisodeStore.create(tmp_path / "s", embodiments=[make_arm("alpha", joints=5)]).close()
    with pytest.raises(IncompatibleError, match="state differ"):
        extend(tmp_path / "s")


def test_another_env_or_noise_is_refused_before_workers_start(tmp_path, no_workers):
    with pytest.raises(
        IncompatibleError, match=r"fingerprint older then, first build now[\s\S]*another path"
    ):
        extend(fill(tmp_path / "a", fingerprint="older"))
    with pytest.raises(IncompatibleError, match=r"noise None then, .*burst"):
        extend(fill(tmp_path / "b"), noise=NoiseConfig())


def test_the_same_kind_is_accepted_and_an_unknown_fingerprint_is_told(tmp_path, capsys):
    check_extension(
        SUITE, CELL, fill(tmp_path / "a", noise=NoiseConfig()), image_size=64, noise=NoiseConfig()
    )
    assert capsys.readouterr().err == ""
    check_extension(SUITE, CELL, fill(tmp_path / "b", fingerprint=None), image_size=64, noise=None)
    assert "no fingerprint to compare for reach/alpha" in capsys.readouterr().err


def test_evaluation_seeds_are_refused(tmp_path, no_workers):
    with pytest.raises(ConfigError, match=r"seed0 is 99999: .* from 1000000 on"):
        extend(tmp_path / "s", seed0=99_999)


def test_a_second_process_may_not_generate_into_the_same_store(tmp_path, no_workers):
    with (
        exclusive(tmp_path / "s", "generating"),
        pytest.raises(VlaError, match=r"Not generating in .*s: another process"),
    ):
        extend(tmp_path / "s")


def test_a_workers_own_error_arrives_without_its_traceback(tmp_path):
    with pytest.raises(EnvError, match="this task cannot be built") as caught:
        generate(SUITE, [Cell(task="breaks", embodiment="alpha")], 1, tmp_path / "s", progress=False)
    assert "Traceback" not in str(caught.value)
