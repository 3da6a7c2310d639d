"""Remaining life: what is learned from lives that have ended, its file, and what the daemon says of it."""

import numpy as np
import pytest
from small_plants import write_recording

from fusion.cli import main
from fusion.daemon.progression import FILE, Progress
from fusion.daemon.settings import load_daemon_config
from fusion.dashboard.board import Board
from fusion.dashboard.progression import progression_lines
from fusion.errors import ConfigError
from fusion.plant import Plant, Signal
from fusion.publish.messages import encode
from fusion.publish.progression import progression_message
from fusion.records import NS_PER_S
from fusion.training.life import train_life
from fusion.trends import Progression, RemainingLife
from models.progression.life import CAP, LifeCarry, fit_life, smoothed
from models.progression.life_file import load_life
from tests.grid_runs import from_process_grid

TAGS = ("TT", "VT", "QT", "ZT")
PUMP = Plant(name="pump", signals=tuple(Signal(name=name) for name in TAGS))
OTHER = Plant(name="other", signals=PUMP.signals)
POINT_S = 5.0


def worn(seed, points=None):
    """A pump [N, 4] until it fails: it warms and shakes the more, the further it is worn; two tags say nothing."""
    rng = np.random.default_rng(seed)
    points = points or int(rng.integers(120, 280))
    wear = (np.arange(points) / points) ** 3
    values = np.column_stack([60 + 10 * wear, 2 + wear, np.zeros(points), np.full(points, 7.0)])
    return values + rng.normal(size=values.shape) * [0.5, 0.05, 1.0, 0.0]


def values_of(life):
    """Each point of a life held for its seconds, by tag."""
    return {name: np.repeat(column, round(POINT_S)) for name, column in zip(TAGS, life.T, strict=True)}


@pytest.fixture(scope="module")
def learned():
    return fit_life([worn(seed) for seed in range(20)], TAGS, POINT_S)


def test_what_is_left_is_told_by_the_ends_of_others(learned):
    assert abs(learned.weights[3]) == 0.0, "what never moves tells nothing"
    assert abs(learned.weights[0]) > 3 * abs(learned.weights[2])
    errors, inside = [], []
    for seed in range(100, 130):
        life = worn(seed)
        for left in (10, 30, 60):
            made = learned.remaining(smoothed(learned.index(life[:-left])))
            if made is not None:
                errors.append(made.middle - left)
                inside.append(made.low <= left <= made.high)
    assert len(errors) > 80, "few lives are like none that was seen"
    assert np.sqrt(np.mean(np.square(errors))) < 16.0
    assert np.mean(inside) > 0.75, "nine of ten with fifty lives, eight with twenty"
    young = learned.remaining(smoothed(learned.index(worn(1, 200)[:30])))
    assert young.capped
    assert young.high == learned.cap == round(CAP * np.median(np.diff(learned.ends, prepend=0)))


def test_what_is_like_no_life_or_too_short_is_not_told(learned):
    assert learned.remaining(smoothed(learned.index(worn(1)[:5]))) is None
    assert learned.remaining(smoothed(learned.index(worn(1)[:100] + np.array([0.0, 5.0, 0.0, 0.0])))) is None
    short = [worn(seed, 8) for seed in range(6)]
    for lives in ([worn(0)] * 3, [np.ones((50, 4))] * 6, [*[worn(seed) for seed in range(4)], worn(4)[:10]], short):
        with pytest.raises(ConfigError, match=r"^life: "):
            fit_life(lives, TAGS, POINT_S)


def test_a_tag_that_never_had_a_value_tells_nothing():
    never = np.array([1.0, 1.0, np.nan, 1.0])
    made = fit_life([worn(seed) * never for seed in range(6)], TAGS, POINT_S)
    assert made.weights[2] == 0.0
    assert abs(made.weights[0]) > 0.0
    assert np.isfinite(made.index(worn(9))).all()


def test_tick_by_tick_gives_what_all_at_once_gives_and_missing_values_say_nothing(learned):
    life, carry = worn(7), LifeCarry.begin(4)
    for i, row in enumerate(life):
        for second in range(round(POINT_S)):
            seen = np.array([True, True, second > 0, i % 7 > 0])
            spoiled = np.where(seen, row, np.nan)
            carry.take(round((i * POINT_S + second) * NS_PER_S), spoiled, seen, learned)
    whole = smoothed(learned.index(life))
    np.testing.assert_allclose(carry.course, whole[:-1][-learned.window :], atol=1e-9)
    assert np.isfinite(learned.index(np.full((2, 4), np.nan))).all()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """An index from recordings, one of the lives in two parts, by the command line."""
    folder = tmp_path_factory.mktemp("lives")
    arguments = []
    for seed in range(6):
        values, start = values_of(worn(seed)), 1_700_000_000 + 100_000 * seed
        if seed == 0:
            half = len(values["TT"]) // 2
            first = write_recording(folder / "0a", PUMP, {n: v[:half] for n, v in values.items()}, start)
            second = write_recording(folder / "0b", PUMP, {n: v[half:] for n, v in values.items()}, start + half)
            arguments += ["--life", str(first), str(second)]
        else:
            arguments += ["--life", str(write_recording(folder / str(seed), PUMP, values, start))]
    assert main(["life", *arguments, "--out", str(folder / "life.npz"), "--every", str(POINT_S)]) == 0
    return folder / "life.npz"


def test_the_command_learns_from_recordings_and_refuses_other_plants(file, tmp_path):
    made = load_life(file, PUMP)
    assert (len(made.ends), made.point_s, made.tags) == (6, POINT_S, TAGS)
    assert 0 < made.left_out_rmse < 60
    with pytest.raises(ConfigError, match="another plant"):
        load_life(file, OTHER)
    (tmp_path / "half").write_bytes(file.read_bytes()[:500])
    with pytest.raises(ConfigError, match="expected a file of `fusion life`"):
        load_life(tmp_path / "half", PUMP)
    foreign = write_recording(tmp_path / "foreign", OTHER, values_of(worn(1)))
    with pytest.raises(ConfigError, match=r"another plant than .*: name: "):
        train_life([[file.parent / "1"], [foreign]], tmp_path / "out.npz")


def test_the_daemon_tells_remaining_life_over_a_restart_and_anew_after_maintenance(file, tmp_path):
    life = worn(50, 200)[:170]
    run = from_process_grid(PUMP, (1_800_000_000 + np.arange(850)) * NS_PER_S, values_of(life))

    def lived(progress, first, last):
        said = [progress.step(run[i : i + 1], None) for i in range(first, last)]
        return progress, [made for made in said if made is not None][-1]

    progress, _ = lived(Progress(PUMP, tmp_path / FILE, "pump", load_life(file, PUMP)), 0, 600)
    progress.close()
    progress, said = lived(Progress(PUMP, tmp_path / FILE, "pump", load_life(file, PUMP)), 600, 601)
    assert said.life.low_s < 80 * POINT_S
    for i in range(601, 849):
        progress.step(run[i : i + 1], None)
    late = progress._left()
    assert late.low_s <= 30 * POINT_S <= late.high_s
    assert late.expected_s < said.life.expected_s
    progress.begin_anew(int(run.t_ns[-1]))
    assert progress.step(run[849:], None).life is None
    progress.close()


def test_it_is_said_in_hours_or_days():
    board = Board(PUMP, 60.0)

    def said(**rest):
        known = {"low_s": 36e3, "expected_s": 72e3, "high_s": 144e3, "capped": False} | rest
        told = Progression(t_ns=0, trends=(), watched=0, seen_days=3.0, life=RemainingLife(**known))
        board.take("fusion/pump/v1/progression", encode(progression_message(told, PUMP, "m")))
        return progression_lines(board)[0]

    assert said() == "Remaining life: 20 h (10 to 40)"
    assert said(expected_s=864e3, high_s=1728e3) == "Remaining life: 10 days (0.417 to 20)"
    assert said(capped=True) == "Remaining life: more than 10 h; the end is too far to be told"


def test_the_daemon_takes_the_index_from_its_configuration(tmp_path):
    (tmp_path / "daemon.yaml").write_text("plant: plant.yaml\nmodel: model\nlife: life.npz\n")
    assert load_daemon_config(tmp_path / "daemon.yaml").life == str(tmp_path / "life.npz")
