import numpy as np
import pytest

from tests.benchmarks.metrics import auc_pr, batadal_score, period, rates, spans, vus_pr
from tests.benchmarks.skab import Run, judged


def test_spans_are_first_and_last_rows():
    assert spans(np.array([1, 1, 0, 0, 1], bool)) == [(0, 1), (4, 4)]
    assert spans(np.zeros(3, bool)) == []


def test_average_precision_by_hand():
    label = np.array([True, False, True, False])
    assert auc_pr(np.array([4.0, 3.0, 2.0, 1.0]), label) == pytest.approx((1 + 2 / 3) / 2)
    assert auc_pr(np.array([4.0, 1.0, 3.0, 2.0]), label) == 1.0
    assert auc_pr(np.ones(4), label) == 0.5


def test_the_volume_is_one_for_a_perfect_score_and_small_for_a_random_one():
    label = np.zeros(2000, bool)
    label[900:1000] = True
    perfect = label + 0.0
    assert vus_pr(perfect, label, 0) == pytest.approx(1.0)
    assert vus_pr(np.random.default_rng(0).random(2000), label, 20) < 0.15
    late = np.roll(perfect, 10)
    assert vus_pr(late, label, 0) < vus_pr(late, label, 40)


def test_an_event_that_is_never_touched_costs_recall():
    label = np.zeros(400, bool)
    label[50:60] = label[200:210] = True
    one, both = np.zeros(400), np.zeros(400)
    one[50:60] = both[50:60] = both[200:210] = 1.0
    assert vus_pr(one, label, 0) < 0.5 < vus_pr(both, label, 0)


def test_the_period_of_a_sine_is_found_and_noise_has_the_usual_one():
    rows = np.arange(3000)
    assert period(np.sin(2 * np.pi * rows / 60)) == pytest.approx(60, abs=1)
    assert period(np.ones(500) + np.arange(500)) == 125


def test_rates_by_row():
    alarm, label = np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)
    assert rates(alarm, label) == (0.5, 50.0, 50.0)


def test_the_contest_s_score_by_hand():
    label = np.array([0, 0, 1, 1, 1, 1, 0, 0], bool)
    alarm = np.array([0, 0, 0, 1, 1, 1, 0, 0], bool)
    assert batadal_score(alarm, label) == pytest.approx(0.5 * (1 - 0.25) + 0.25 * (0.75 + 1.0))
    assert batadal_score(np.ones(8, bool), label) == 0.75
    assert batadal_score(np.zeros(8, bool), label) == 0.25


def test_an_alarm_that_stood_before_an_event_does_not_find_it():
    label = np.zeros(700, bool)
    label[500:600] = True
    run = Run("r", np.zeros((700, 1)), label, np.arange(700))
    alarm = np.zeros(700, bool)
    alarm[450:620] = True
    row = judged(run, alarm + 0.0, alarm, np.array([450]))
    assert row["delays"] == [None]
    assert row["false"] == 1
    alarm[450:520] = False
    row = judged(run, alarm + 0.0, alarm, np.array([520]))
    assert row["delays"] == [20]
    assert row["false"] == 0
