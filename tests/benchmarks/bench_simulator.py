"""How many plant seconds the simulator makes of one CPU second, with all senses and with tags alone.

Run: python -m tests.benchmarks.bench_simulator [--seconds 120]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from fusion.plant_file import load_plant
from fusion.simulator.scenario import Scenario, Sensors
from fusion.simulator.simulation import Simulation

PLANT = Path(__file__).resolve().parents[2] / "configs" / "plant" / "lime.yaml"
CASES = {
    "all senses, LiDAR 5 Hz": Scenario(name="bench"),
    "all senses, LiDAR 1 Hz": Scenario(name="bench", sensors=Sensors(lidar_hz=1)),
    "tags alone": Scenario(name="bench", media=False),
}


def speed(scenario: Scenario, seconds: int) -> float:
    """Plant seconds per CPU second of this process."""
    simulation = Simulation(scenario, load_plant(PLANT))
    simulation.advance(5)
    begun = time.process_time()
    for _ in range(seconds):
        simulation.advance()
    return seconds / (time.process_time() - begun)


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=120, help="plant seconds measured with all senses")
    seconds = parser.parse_args().seconds
    for name, scenario in CASES.items():
        count = seconds if scenario.media else 10 * seconds
        print(f"{name:24} {speed(replace(scenario, duration_s=count + 60.0), count):6.0f} plant s per CPU s")


if __name__ == "__main__":
    main()
