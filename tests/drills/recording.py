"""A drill of the recorder: killed at random moments, and what its recordings then hold."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np

from fusion.plant import Plant, Signal
from fusion.recordings.recorder import OPEN, Recorder, RecorderConfig
from fusion.records import Columns
from tests.drills.rig import Options, Outcome

PLANT = Plant(name="drill", signals=(Signal(name="T", unit="1"),))
EVERY_S, SLICE_S, SEGMENT_S = 0.01, 0.5, 3.0


def recorder_kills(options: Options, folder):
    """The recorder killed with -9 while values come: every recording whole, nothing twice, only the end missing."""
    rng, given, missing, torn = random.Random(options.seed), 0, [], 0
    for _ in range(options.kills):
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.drills.recording", str(folder), str(given)], stdout=subprocess.PIPE
        )
        said = child.stdout.readline()
        time.sleep(0.2 + 2.0 * rng.random())
        os.kill(child.pid, signal.SIGKILL)
        numbers = [int(line) for line in (said + child.stdout.read()).split() if line.isdigit()]
        child.wait()
        child.stdout.close()
        kept = _kept(folder)
        lost = sorted(set(numbers) - set(kept))
        missing.append(len(lost) * EVERY_S)
        torn += len(kept) != len(set(kept)) or lost != list(range(numbers[-1] + 1 - len(lost), numbers[-1] + 1))
        given = numbers[-1] + 1
    end = f"at most the last {max(missing):.2f} s of {given} values"
    return Outcome(
        passed=not torn and max(missing) <= SLICE_S + 1.0,
        lost=f"{end}; {torn} holes or repeats in {options.kills} kills",
        parameters={"kills": options.kills, "slice_s": SLICE_S, "segment_s": SEGMENT_S, "values_a_second": 1 / EVERY_S},
        counts={
            "values": given,
            "most_lost_s": round(max(missing), 3),
            "mean_lost_s": round(float(np.mean(missing)), 3),
        },
    )


def _kept(folder):
    """The numbers in all recordings, after a start has made them whole; a damaged one is refused here."""
    recorder = Recorder(RecorderConfig(folder=str(folder)), PLANT)
    recorder.start()
    recorder.close()
    assert not list((folder / OPEN).iterdir())
    kept = []
    for segment in recorder.segments():
        segment.verify()
        kept += [int(value) for value in segment.table()["value"]]
    return kept


def record(folder, number):
    """Record numbers until somebody ends it; each is said once it is handed over."""
    recorder = Recorder(RecorderConfig(folder=folder, slice_s=SLICE_S, segment_s=SEGMENT_S), PLANT)
    recorder.start()
    while True:
        t_ns = np.array([time.time_ns()])
        value, quality = np.array([float(number)]), np.array([2], np.uint8)
        recorder.add(
            Columns(
                signals=("T",), index=np.zeros(1, np.int32), t_ns=t_ns, received_ns=t_ns, value=value, quality=quality
            )
        )
        print(number, flush=True)
        number += 1
        time.sleep(EVERY_S)


DRILLS = (recorder_kills,)

if __name__ == "__main__":
    record(sys.argv[1], int(sys.argv[2]))
