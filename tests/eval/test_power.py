import numpy as np
import pytest

from vla.eval.intervals import wilson
from vla.eval.paired import mcnemar_exact
from vla.eval.power import episodes_for_width, episodes_to_tell, mcnemar_power


def test_the_width_asked_for_is_reached_and_not_long_before():
    n = episodes_for_width(0.95, 0.02)
    low, high = wilson(round(0.95 * n), n)
    assert (high - low) / 2 <= 0.02
    low, high = wilson(round(0.95 * 0.9 * n), int(0.9 * n))
    assert (high - low) / 2 > 0.02


def test_power_is_how_often_the_test_rejects():
    rng, n = np.random.default_rng(0), 120
    for only_a, only_b in ((0.2, 0.05), (0.1, 0.1)):
        counts = rng.multinomial(n, [only_a, only_b, 1 - only_a - only_b], size=1500)
        rejected = np.mean([mcnemar_exact(int(a), int(b)) <= 0.05 for a, b, _ in counts])
        assert mcnemar_power(n, only_a, only_b) == pytest.approx(rejected, abs=0.03)


def test_telling_90_from_95_takes_hundreds_and_fewer_where_the_scenes_decide():
    apart = episodes_to_tell(0.90, 0.95)
    alike = episodes_to_tell(0.90, 0.95, agreement=0.8)
    assert 300 < apart < 500  # some 435 in each arm of a textbook's unpaired test
    assert alike < apart / 2
    assert episodes_to_tell(0.5, 0.9) < 40


def test_questions_without_an_answer_are_refused():
    with pytest.raises(ValueError, match="two different numbers"):
        episodes_to_tell(0.9, 0.9)
    with pytest.raises(ValueError, match="ask for less"):
        episodes_to_tell(0.5, 0.50001)
    with pytest.raises(ValueError, match="out of range"):
        episodes_for_width(0.5, 0.0)
