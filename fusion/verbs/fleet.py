"""Verbs of the fleet: what many plants teach about one that is new."""

from __future__ import annotations

import argparse
from pathlib import Path

from fusion.command import Verb, finite


def _fleet(verb: argparse.ArgumentParser) -> None:
    what = verb.add_subparsers(title="what", required=True, metavar="WHAT", dest="what")
    text = "train a fleet model: of simulated plants, or of recordings of many plants"
    train = what.add_parser("train", help=text, description=text)
    train.add_argument("--plants", type=int, default=120, help="how many plants are simulated")
    train.add_argument("--minutes", type=finite, default=45.0, help="how long each runs")
    train.add_argument("--flowsheets", type=int, default=0, help="how many plants of random flowsheets beside them")
    train.add_argument(
        "--recordings", type=Path, nargs="+", metavar="DIR", help="recordings instead of simulated plants"
    )
    text = "a model that stays as it forecasts: only hidden states are learned anew"
    train.add_argument("--model", type=Path, metavar="DIR", help=text)
    train.add_argument("--out", type=Path, required=True, help="model folder to write")
    train.add_argument("overrides", nargs="*", help="settings, e.g. seed=1 steps=500 spread=1")
    text = "what a fleet model is worth on plants that it never saw"
    judge = what.add_parser("evaluate", help=text, description=text)
    text = "model folders, of which each plant's own minutes choose; default: those that are shipped"
    judge.add_argument("--model", type=Path, nargs="+", metavar="DIR", help=text)
    judge.add_argument("--plants", type=int, default=20, help="how many unseen plants are simulated")
    judge.add_argument("--minutes", type=finite, default=10.0, help="own data of each plant")
    judge.add_argument("--spread", type=finite, default=3.0, help="factor in which the plants differ; 1: one kind")
    judge.add_argument("--share", type=finite, default=1.0, help="share of the tags that each plant has")
    judge.add_argument("--alike", action="store_true", help="all plants have the line's own instruments")
    judge.add_argument("--flowsheets", action="store_true", help="they are of random flowsheets, no two alike")
    judge.add_argument(
        "--recordings", type=Path, nargs="+", metavar="DIR", help="recordings instead of simulated plants"
    )
    judge.add_argument(
        "--crossing", type=finite, default=0.0, metavar="H", help="also: up to so many hours of own data"
    )
    judge.add_argument("--json", type=Path, metavar="OUT", help="write the tables to a file")


def run_fleet(arguments: argparse.Namespace) -> None:
    """Train a fleet model, or judge one."""
    from fusion.fleet.command import evaluate, train

    (train if arguments.what == "train" else evaluate)(arguments)


VERBS = (Verb("fleet", "train a model of many plants, or judge one on plants never seen", _fleet, run_fleet),)
