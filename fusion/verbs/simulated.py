"""Verbs of the simulated plant: the whole demo, its servers alone, its faults."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fusion.command import CONFIGS, Verb, broker_arguments, broker_settings, finite, plant_argument, say
from fusion.errors import ConfigError


def _demo(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--dir", type=Path, default=Path("var/demo"), help="where recordings and the model are cached")
    verb.add_argument("--scenario", type=Path, help="scenario the live plant follows")
    verb.add_argument("--port", type=int, default=8080, help="port of the page")
    verb.add_argument("--again", action="store_true", help="commission again even where a model is cached")


def run_demo(arguments: argparse.Namespace) -> int:
    """Simulated plant, commissioning, daemon and page."""
    from fusion.demo import Demo

    return Demo(arguments.dir, page_port=arguments.port, scenario=arguments.scenario).run(again=arguments.again)


def _plant(verb: argparse.ArgumentParser) -> None:
    plant_argument(verb)
    verb.add_argument("--scenario", type=Path, help="scenario YAML; without it normal operation for ever")
    for name, port in (("opcua", 4840), ("mqtt", 1883), ("rtsp", 8554), ("lidar", 2368)):
        verb.add_argument(f"--{name}-port", type=int, default=port)
    verb.add_argument("--broker", metavar="HOST:PORT", help="an MQTT broker that runs already; else one is started")
    broker_arguments(verb)


def run_plant(arguments: argparse.Namespace) -> None:
    """The simulated plant on its real servers, until asked to stop."""
    import asyncio

    from fusion.ending import stop_on_signals
    from fusion.mqtt.broker import Broker
    from fusion.plant_file import load_plant
    from fusion.simulator.live import LiveConfig, serve
    from fusion.simulator.scenario import load_scenario
    from fusion.simulator.simulation import Simulation

    plant = load_plant(arguments.plant)
    simulation = Simulation(load_scenario(arguments.scenario or CONFIGS / "scenario" / "live.yaml"), plant)
    config = LiveConfig(
        opcua_port=arguments.opcua_port,
        mqtt_port=arguments.mqtt_port,
        rtsp_port=arguments.rtsp_port,
        lidar_port=arguments.lidar_port,
        broker=Broker(**broker_settings(arguments.broker, arguments)) if arguments.broker else None,
    )

    async def until_stopped() -> None:
        stop = asyncio.Event()
        with stop_on_signals(stop):
            await serve(simulation, plant, config, stop)

    asyncio.run(until_stopped())


def _fault(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", help="fault name, or `clear` to end all faults, or `list`")
    verb.add_argument("--severity", type=finite, default=1.0, help="0..1")
    verb.add_argument("--ramp-s", type=finite, default=0.0, help="time to full severity [s]")
    verb.add_argument("--signal", help="the signal a sensor fault acts on")
    verb.add_argument("--plant", default="lime", help="name of the plant")
    verb.add_argument("--broker", metavar="HOST:PORT", help="default: that of the running demo, or 127.0.0.1:1883")
    broker_arguments(verb)


def run_fault(arguments: argparse.Namespace) -> None:
    """Tell the running plant to misbehave, or to stop it."""
    from fusion.mqtt.broker import Broker
    from fusion.simulator.line.faults import FAULTS
    from fusion.simulator.orders import send_order

    if arguments.name == "list":
        for name, fault in FAULTS.items():
            say(f"{name:22} {fault.description}")
        return
    if arguments.name != "clear" and arguments.name not in FAULTS:
        raise ConfigError(f"fault {arguments.name!r} is not known; accepted: clear, list, {', '.join(FAULTS)}")
    order: dict[str, Any] = {"op": "clear"}
    if arguments.name != "clear":
        order = {"op": "fault", "name": arguments.name, "severity": arguments.severity, "ramp_s": arguments.ramp_s}
    if arguments.signal:
        order["signal"] = arguments.signal
    address = arguments.broker or f"127.0.0.1:{_demo_port() or 1883}"
    send_order(Broker(**broker_settings(address, arguments)), arguments.plant, order)
    say(f"{arguments.plant}: {arguments.name}")


def _demo_port() -> int | None:
    """MQTT port of the demo that runs in this folder, if there is one."""
    try:
        return int(json.loads(Path("var/demo/demo.json").read_text())["mqtt"])
    except (OSError, KeyError, ValueError):
        return None


VERBS = (
    Verb("demo", "simulated plant, commissioning, daemon and page, all on this machine", _demo, run_demo),
    Verb("plant", "run the simulated plant on OPC UA, MQTT, RTSP and LiDAR UDP", _plant, run_plant),
    Verb("fault", "inject a fault into the simulated plant, or clear it", _fault, run_fault),
)
