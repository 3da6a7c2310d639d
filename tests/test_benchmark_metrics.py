import numpy as np
import pytest

from tests.benchmarks.metrics import auc_pr, batadal_score, period, rates, spans, vus_pr


def label(rows: int, *events: tuple[int, int]):
    made = np.zeros(rows, bool)
    for first, last in events:
        made[first : last + 1] = True
    return made


def test_spans_hold_first_and_last_row_at_both_ends_too():
    assert spans(label(10, (0, 1), (4, 4), (8, 9))) == [(0, 1), (4, 4), (8, 9)]
    assert spans(label(3)) == []


def test_average_precision_by_hand():
    truth = np.array([True, False, True, False])
    # by falling score: hit (1/1), miss, hit (2/3), miss: half of 1 plus half of 2/3
    assert auc_pr(np.array([0.9, 0.8, 0.7, 0.1]), truth) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert auc_pr(np.ones(4), truth) == pytest.approx(0.5)  # one score for all is the base rate
    assert auc_pr(np.array([0.0, 1.0, 0.0, 1.0]), truth) == pytest.approx(0.5)


def test_volume_is_one_for_the_truth_and_near_the_base_rate_for_noise():
    truth = label(2000, (400, 449), (1200, 1249))
    assert vus_pr(truth.astype(float), truth, 0) == pytest.approx(1.0)
    noise = np.random.default_rng(0).random(2000)
    assert 0.02 < vus_pr(noise, truth, 0) < 0.12
    early = np.roll(truth, -5).astype(float)
    assert vus_pr(early, truth, 40) > vus_pr(early, truth, 0)  # close by counts in part


def test_rates_by_row_without_point_adjustment():
    truth, alarm = label(10, (2, 5)), label(10, (4, 6))
    f1, far, mar = rates(alarm, truth)
    assert f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))
    assert far == pytest.approx(100 / 6)
    assert mar == pytest.approx(50.0)


def test_score_of_the_contest_by_hand():
    truth = label(20, (5, 8), (12, 15))
    assert batadal_score(truth, truth) == pytest.approx(1.0)
    assert batadal_score(np.ones(20, bool), truth) == pytest.approx(0.75)  # published for the alarm that always stands
    assert batadal_score(np.zeros(20, bool), truth) == pytest.approx(0.25)
    # the first is found after half of its time, the second never: S_TTD = 1 - (0.5 + 1) / 2, TPR 2/8, TNR 1
    assert batadal_score(label(20, (7, 8)), truth) == pytest.approx(0.5 * 0.25 + 0.25 * (0.25 + 1.0))


def test_period_of_a_sine():
    assert period(np.sin(2 * np.pi * np.arange(2000) / 50)) in (49, 50, 51)
    assert period(np.arange(500.0)) == 125
