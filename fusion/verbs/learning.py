"""Verbs that make models of recordings, and choose among them."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path

from fusion.command import Verb, finite, plant_argument, say, training_arguments
from fusion.errors import ConfigError


def _train(verb: argparse.ArgumentParser) -> None:
    training_arguments(verb)
    verb.add_argument(
        "--multirun",
        action="store_true",
        help="train every combination of settings (seed=0,1,2) into OUT/0, OUT/1 ...",
    )


def run_train(arguments: argparse.Namespace) -> None:
    """Recordings in, model and report out; or a sweep of them and its table."""
    from fusion.training.train import run

    if arguments.multirun:
        _sweep(arguments)
    else:
        run(arguments)


def _sweep(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from fusion.recordings.recording import recordings_in
    from fusion.training.sweep import sweep, table

    rows = sweep(recordings_in(arguments.recording), arguments.out, arguments.overrides)
    Console().print(table(rows))


def _life(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--life", type=Path, nargs="+", action="append", required=True, metavar="DIR",
        help="recordings of one life until its end, oldest first; say it once for each life",
    )  # fmt: skip
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="the index; daemon.yaml names it as life")
    verb.add_argument("--every", type=finite, metavar="S", help="one point in so many seconds; default: 200 of a life")


def run_life(arguments: argparse.Namespace) -> None:
    """Lives that have ended in, an index of condition out."""
    from fusion.training.life import train_life

    if arguments.every is not None and arguments.every <= 0:
        raise ConfigError(f"--every {arguments.every:g}: must be positive")
    made = train_life(arguments.life, arguments.out, arguments.every)
    hours = made.point_s / 3600
    say(
        f"{len(made.ends)} lives, a point in {made.point_s:g} s. Of lives left out the remaining life is told with an "
        f"error of {made.left_out_rmse * hours:.3g} h (root mean square), {100 * made.left_out_inside:.0f} % lie in "
        f"the interval; the end is in sight from {made.cap * hours:.3g} h on."
    )


def _learn(verb: argparse.ArgumentParser) -> None:
    plant_argument(verb)
    verb.add_argument("--records", type=Path, required=True, help="folder of recordings: record.folder of a daemon")
    verb.add_argument("--models", type=Path, required=True, help="folder of models: learn.models of a daemon")
    verb.add_argument("overrides", nargs="*", help="settings of the training, e.g. seconds=600")


def run_learn(arguments: argparse.Namespace) -> None:
    """Recordings in, a model in the store, and the verdict on it."""
    from fusion.learning import learn
    from fusion.model_store import ModelStore
    from fusion.plant_file import load_plant
    from fusion.training.settings import train_config

    config = train_config(arguments.overrides)
    verdict = learn(arguments.records, ModelStore(arguments.models), load_plant(arguments.plant), config)
    say(f"model {verdict.model} {'is in use' if verdict.taken else 'is not used'}: {verdict.reason}")


def _model(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("what", choices=("list", "accept", "rollback"))
    verb.add_argument("name", nargs="?", help="the model to accept, such as 0003")
    verb.add_argument("--models", type=Path, required=True, help="folder of models: learn.models of a daemon")
    verb.add_argument("--by", default=getpass.getuser(), help="who decides; default: the user of this machine")


def run_model(arguments: argparse.Namespace) -> None:
    """What models there are, and which is in use; a running daemon takes what is chosen within seconds."""
    from fusion.clock import iso_time
    from fusion.model_store import ModelStore

    store = ModelStore(arguments.models)
    if (arguments.what == "accept") != (arguments.name is not None):
        raise ConfigError("model: accept needs the name of a model, list and rollback take none")
    if arguments.what == "accept":
        store.choose(arguments.name, arguments.by)
    elif arguments.what == "rollback":
        store.roll_back(arguments.by)
    last = {choice.model: choice for choice in store.history()}
    for name in store.names():
        used = last.get(name)
        said = f"used since {iso_time(used.t_ns)} by {used.by}  {used.reason}" if used else "never used"
        say(f"{'*' if store.current == store.folder / name else ' '} {name}  {said}")


VERBS = (
    Verb("train", "train a model on recordings; continues where a killed run stopped", _train, run_train),
    Verb(
        "learn",
        "learn from a folder of recordings, and use the model where it is no worse than the one in use",
        _learn,
        run_learn,
    ),
    Verb("life", "learn how long what wears will last, from lives that have ended", _life, run_life),
    Verb("model", "list the models of a plant, put one to use, or go back to the one before", _model, run_model),
)
