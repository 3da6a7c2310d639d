"""Run the drills and write what each found: short by default; those of load and time commission a model first."""

import argparse
import json
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.drills import delivery, endurance, intake, load, page, recording, soak, stranger, whole
from tests.drills.rig import Options, Skipped

DRILLS = {
    drill.__name__: drill
    for part in (delivery, intake, recording, whole, stranger, load, soak, page, endurance)
    for drill in part.DRILLS
}


def run(name, options):
    """One drill as plain values."""
    began = time.monotonic()
    found = {"name": name, "what": DRILLS[name].__doc__}
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        try:
            outcome = DRILLS[name](options, Path(folder))
            found |= {"state": "passed" if outcome.passed else "failed", "lost": outcome.lost}
            found |= {"parameters": outcome.parameters, "counts": outcome.counts}
        except Skipped as reason:
            found |= {"state": "skipped", "lost": f"not known: {reason}"}
        except Exception:  # noqa: BLE001 - a drill that breaks is a finding, and the others still run
            found |= {"state": "failed", "lost": "not known: the drill broke", "error": traceback.format_exc()}
    return found | {"seconds": round(time.monotonic() - began, 1)}


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure here")
    parser.add_argument("--only", nargs="+", choices=DRILLS, default=list(DRILLS))
    parser.add_argument("--kills", type=int, default=Options.kills, help="how often each drill of kills kills")
    parser.add_argument("--long", action="store_true", help="full lengths, such as ten minutes without a broker")
    parser.add_argument("--soak", type=float, metavar="MIN", help="length of each soak (60 is usual)")
    parser.add_argument("--hours", type=float, default=Options.hours, help="plant time of the drills of endurance (24)")
    parser.add_argument("--tags", type=int, default=Options.tags, help="how many the drill of many tags has")
    parser.add_argument("--seed", type=int, default=Options.seed)
    given = parser.parse_args()
    soak_s = Options.soak_s if given.soak is None else 60.0 * given.soak
    more = {name: getattr(given, name) for name in ("kills", "long", "seed", "tags", "hours")}
    options = Options(soak_s=soak_s, **more)
    found = []
    for name in given.only:
        found.append(run(name, options))
        print(f"{found[-1]['state']:7} {name:18} {found[-1]['seconds']:6.1f} s  lost: {found[-1]['lost']}", flush=True)
        if "error" in found[-1]:
            print(found[-1]["error"], file=sys.stderr)
    if given.json:
        machine = {"python": platform.python_version(), "machine": platform.platform()}
        report = {"options": vars(given) | {"json": str(given.json)}, "machine": machine, "drills": found}
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    return any(drill["state"] == "failed" for drill in found)


if __name__ == "__main__":
    sys.exit(main())
