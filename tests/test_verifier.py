"""The verifier: letters in, checked again, written over OPC UA, read back, answered; whatever is amiss hands back."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest
import yaml
from asyncua import ua
from asyncua.server.server import Server
from mosquitto import Mosquitto, needs_broker
from wire_examples import KILN, free_port, health, recommendation, until

from fusion.errors import ConfigError
from fusion.plant import plant_to_dict
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.records import AnswerKind, HoldReason, Verdict
from fusion.verifier.service import Verifier
from fusion.verifier.settings import checked_loops, load_verifier_config, read_plant

URI = "urn:test:dcs"
SP = "TIC1.SP"


def settings_of(opcua_port, mqtt_port, **changes):
    node = f"nsu={URI};s="
    loop = {
        "node": f"{node}{SP}",
        "unit": "Cel",
        "mode_node": f"{node}TIC1.MODE",
        "release_node": f"{node}TIC1.RELEASE",
        "rate": 0.1,
        **changes.pop("loop", {}),
    }
    return {
        "plant": "plant.yaml",
        "broker": {"port": mqtt_port},
        "opcua": {"url": f"opc.tcp://127.0.0.1:{opcua_port}", "insecure": True},
        "loops": {changes.pop("signal", SP): loop},
        "heartbeat": {"ours": f"{node}OURS", "theirs": f"{node}THEIRS", "timeout_s": 2.0},
        "enable_node": f"{node}ENABLE",
        "interval_s": 0.1,
        **changes,
    }


def written(folder, values, plant=KILN):
    (folder / "plant.yaml").write_text(yaml.safe_dump(plant_to_dict(plant)))
    file = folder / "verifier.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


class Dcs:
    """A control system: one loop, a counter that it turns, a kill switch."""

    def __init__(self, port):
        self.port, self.refuses, self.beating = port, False, True
        self.nodes, self.history = {}, []

    async def __aenter__(self):
        self.server = Server()
        await self.server.init()
        self.server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        index = await self.server.register_namespace(URI)
        starts = {SP: 82.0, "TIC1.MODE": 1, "TIC1.RELEASE": 1, "OURS": 0, "THEIRS": 0, "ENABLE": True}
        for name, value in starts.items():
            node = await self.server.nodes.objects.add_variable(ua.NodeId(name, index), name, value)
            await node.set_writable()
            self.nodes[name] = node
        await self.server.start()
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.server.stop(), 5)

    async def _beat(self):
        while True:
            if self.beating:
                await self.set("THEIRS", (await self.get("THEIRS") + 1) % 1000)
            value = await self.get(SP)
            if not self.history or self.history[-1][1] != value:
                self.history.append((time.monotonic(), value))
            await asyncio.sleep(0.02)

    async def get(self, name):
        return await self.nodes[name].read_value()

    async def set(self, name, value):
        kind = ua.VariantType.Double if name == SP else None
        await self.nodes[name].write_value(value, kind)


class Works:
    """Control system, broker, the daemon's publisher and the verifier, which is a process of its own."""

    def __init__(self, folder, **changes):
        self.folder, self.changes, self.orders = folder, changes, 0

    async def __aenter__(self):
        self.broker = Mosquitto(self.folder)
        self.dcs = await Dcs(free_port()).__aenter__()
        file = written(self.folder, settings_of(self.dcs.port, self.broker.port, **self.changes))
        self.publisher = MqttPublisher(PublisherConfig(port=self.broker.port, outbox="", retry_s=0.05), KILN, "m1")
        self.publisher.start()
        self.states, self.told = self.broker.read("fusion/kiln/v1/verifier", 10_000, "-F", "%p", timeout_s=300), []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.beating = True
        self._health = asyncio.create_task(self._beat())
        command = [sys.executable, "-m", "fusion.cli", "verify", "--config", str(file)]
        self.process = subprocess.Popen(command)  # noqa: ASYNC220 - it starts at once
        return self

    def _read(self):
        for line in self.states.stdout:
            if line.startswith("{"):
                self.told.append(json.loads(line))

    async def __aexit__(self, *_):
        self._health.cancel()
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, 20)
        self.states.kill()
        self._reading.join(5)
        self.states.wait()
        self.states.stdout.close()
        self.publisher.close()
        await self.dcs.__aexit__()
        self.broker.stop()

    async def _beat(self):
        while True:
            if self.beating:
                self.publisher.publish(health(t_ns=time.time_ns()))
            await asyncio.sleep(0.2)

    async def started(self):
        """Ordered to start, as often as it takes until it has seen both heartbeats."""
        await self.eventually(lambda: self.told, "the verifier is there", 60)

        for _ in range(30):
            self.orders += 1
            by = f"kim {self.orders}."
            self.tell("verifier/order", {"order": "start", "by": by})
            await self.eventually(lambda by=by: any(by in s["reason"] for s in self.told), "the order is heard")
            if self.told[-1]["state"] == "ready":
                return
        raise AssertionError(self.told[-1])

    async def as_it_was(self):
        """All as at the start, as an operator would put it."""
        self.beating = self.dcs.beating = True
        await self.dcs.nodes[SP].set_writable()
        for name, value in ((SP, 82.0), ("TIC1.MODE", 1), ("TIC1.RELEASE", 1), ("ENABLE", True)):
            await self.dcs.set(name, value)
        self.dcs.history = [(time.monotonic(), 82.0)]

    async def steps(self, count):
        """What our heartbeat is over so many of its intervals."""
        seen = []
        for _ in range(count):
            seen.append(await self.dcs.get("OURS"))
            await asyncio.sleep(0.1)
        return seen

    def tell(self, topic, said):
        self.broker.write(f"fusion/kiln/v1/{topic}", json.dumps(said))

    async def advised(self, **changes):
        """A recommendation from what the setpoint is to 1 K less, accepted."""
        now = await self.dcs.get(SP)
        advice = recommendation(t_ns=time.time_ns(), valid_s=60)
        move = replace(advice.moves[0], current=now, recommended=now - 0.2, **changes.pop("move", {}))
        advice = replace(advice, **{"moves": (move,), **changes})
        self.publisher.publish(advice)
        await self.eventually(lambda: not self.publisher.waiting, "the advice is out")
        return advice

    async def accepted(self, **changes):
        advice = await self.advised(**changes)
        self.tell("recommendation/ack", {"id": advice.id, "answer": "accepted", "by": "kim"})
        return advice

    async def eventually(self, condition, what, wait_s=15.0):
        await asyncio.to_thread(until, condition, what, wait_s)

    async def answer(self, kind):
        """The verifier's answer."""
        found = []

        def heard():
            found.extend(a for a in self.publisher.answers() if a.answer is kind)
            return found

        await self.eventually(heard, f"the answer {kind}")
        assert found[0].by == "verifier"
        return found[0]


def lives(folder, scenario, **changes):
    async def life():
        async with Works(folder, **changes) as works:
            await scenario(works)

    asyncio.run(life())


pytestmark = needs_broker


def test_an_accepted_advice_is_written_at_its_rate_and_answered_once_it_is_applied(tmp_path):
    async def scenario(works):
        await works.started()
        advice = await works.accepted()
        applied = await works.answer(AnswerKind.APPLIED)
        assert applied.id == advice.id
        assert await works.dcs.get(SP) == pytest.approx(81.8)
        steps = works.dcs.history
        assert len(steps) > 5
        for (t0, one), (t1, other) in pairwise(steps):
            assert abs(other - one) <= 0.1 * (t1 - t0) + 0.1 * 0.1 + 1e-9
        assert await works.dcs.get("OURS") > 0
        assert await works.dcs.get("TIC1.RELEASE") == 1

    lives(tmp_path, scenario)


def test_nothing_is_written_before_the_start_or_without_acceptance(tmp_path):
    async def scenario(works):
        first = await works.accepted()
        await works.started()
        await works.advised()
        await asyncio.sleep(0.5)
        assert [value for _, value in works.dcs.history] == [82.0]
        await works.advised()
        works.tell("recommendation/ack", {"id": first.id, "answer": "accepted", "by": "kim"})
        failed = await works.answer(AnswerKind.FAILED)
        assert (failed.id, failed.reason) == (first.id, "not the advice that stands")
        assert [value for _, value in works.dcs.history] == [82.0]

    lives(tmp_path, scenario)


def test_supervised_advice_is_followed_unasked_where_the_verifier_allows_it(tmp_path):
    async def scenario(works):
        await works.started()
        advice = await works.advised(mode="supervised")
        assert (await works.answer(AnswerKind.APPLIED)).id == advice.id

    lives(tmp_path, scenario, supervised=True)


async def moved_by_hand(works):
    await works.dcs.set(SP, 84.0)


async def out_of_mode(works):
    await works.dcs.set("TIC1.MODE", 0)


async def killed(works):
    await works.dcs.set("ENABLE", False)


async def dcs_silent(works):
    works.dcs.beating = False


async def daemon_silent(works):
    works.beating = False


async def rejected(works):
    id_ = works.advice.id
    works.tell("recommendation/ack", {"id": id_, "answer": "rejected", "by": "kim"})


async def revoked(works):
    hold = recommendation(t_ns=time.time_ns(), verdict=Verdict.HOLD)
    works.publisher.publish(replace(hold, reason=HoldReason.ANOMALY, text="Hold: open anomaly"))


async def read_only(works):
    await works.dcs.nodes[SP].set_read_only()


async def stopped(works):
    works.tell("verifier/order", {"order": "stop", "by": "kim"})


AMISS = (
    (moved_by_hand, "somebody else moved it"),
    (out_of_mode, "takes no setpoint any more"),
    (killed, "the kill switch is off"),
    (dcs_silent, "the control system's heartbeat is silent"),
    (daemon_silent, "the daemon is silent"),
    (rejected, "was rejected while it was written"),
    (revoked, "was revoked"),
    (read_only, "refused, BadUserAccessDenied"),
    (stopped, "stopped by kim"),
)


def test_whatever_goes_amiss_while_writing_hands_back_and_does_not_return_by_itself(tmp_path):
    async def scenario(works):
        for happens, reason in AMISS:
            await works.as_it_was()
            await works.started()
            works.advice = await works.accepted()
            await works.eventually(lambda: len(works.dcs.history) > 2, "the ramp has begun")
            await happens(works)
            failed = await works.answer(AnswerKind.FAILED)
            assert reason in failed.reason
            await works.eventually(lambda: works.told[-1]["state"] == "handed_back", "it is handed back")
            assert await works.dcs.get("TIC1.RELEASE") == 0
            await works.as_it_was()
            await works.accepted()
            steps = await works.steps(5)
            assert await works.dcs.get(SP) == 82.0, reason
            assert await works.dcs.get("OURS") == steps[0]

    lives(tmp_path, scenario, loop={"rate": 0.02})


def test_an_advice_that_does_not_pass_is_answered_with_the_reason(tmp_path):
    async def scenario(works):
        await works.started()
        for changes, reason in (
            ({"move": {"unit": "K"}}, "in K, expected Cel"),
            ({"move": {"signal": "TT1"}}, "not on the whitelist"),
            ({"plant_fingerprint": "x"}, "another plant"),
            ({"moves": ()}, "no moves"),
        ):
            await works.accepted(**changes)
            assert reason in (await works.answer(AnswerKind.FAILED)).reason
        assert [value for _, value in works.dcs.history] == [82.0]
        assert works.told[-1]["state"] == "ready"

    lives(tmp_path, scenario)


def test_a_verifier_that_ends_leaves_its_last_words(tmp_path):
    async def scenario(works):
        await works.started()
        works.process.kill()
        await works.eventually(lambda: works.told[-1]["state"] == "offline", "its last words", 30)

    lives(tmp_path, scenario)


# --- what is refused at the start, with its key


HOT = replace(KILN, signals=tuple(replace(s, max_rate=None) if s.name == SP else s for s in KILN.signals))


@pytest.mark.parametrize(
    ("changes", "plant", "said"),
    [
        ({"signal": "TT1"}, KILN, r"loops\.TT1: 'TT1' is controlled, nothing to write; accepted: TIC1\.SP"),
        ({"signal": "NO"}, KILN, r"loops\.NO: 'NO' is not in the plant file"),
        ({"loop": {"unit": "K"}}, KILN, r"loops\.TIC1\.SP\.unit: 'K' .* expected 'Cel'"),
        (
            {"loop": {"low": 85, "high": 80}},
            KILN,
            r"loops\.TIC1\.SP: low 85, high 80 contradict; expected within 70 to 90",
        ),
        ({"loop": {"high": 95}}, KILN, r"loops\.TIC1\.SP: low 70, high 95 contradict"),
        ({"loop": {"rate": 9}}, KILN, r"loops\.TIC1\.SP\.rate: 9 is not accepted; expected above 0, at most 0\.1"),
        ({"loop": {"largest_step": 30}}, KILN, r"loops\.TIC1\.SP\.largest_step: 30"),
        ({}, HOT, r"loops\.TIC1\.SP: 'TIC1\.SP' has no low, high and max_rate"),
        ({"interval_s": 2}, KILN, r"interval_s: must be positive and at most half"),
        ({"enable_node": "ns=3;s=X"}, KILN, r"enable_node: ns=3 may move"),
        ({"loops": {}}, KILN, "loops: missing"),
        ({"color": 1}, KILN, "color: unknown key; accepted: plant, opcua, loops"),
    ],
)
def test_bad_settings_are_refused_with_their_key(tmp_path, changes, plant, said):
    with pytest.raises(ConfigError, match=said):
        Verifier(load_verifier_config(written(tmp_path, settings_of(4840, 1883, **changes), plant)))


def test_limits_that_exclude_the_present_setpoint_are_refused(tmp_path):
    async def scenario():
        async with Dcs(free_port()) as dcs:
            file = written(tmp_path, settings_of(dcs.port, 1, loop={"high": 81.0}))
            with pytest.raises(
                ConfigError, match=r"loops\.TIC1\.SP: low 70, high 81 exclude its present setpoint, 82 Cel"
            ):
                await Verifier(load_verifier_config(file)).run(asyncio.Event())

    asyncio.run(scenario())


def test_a_node_that_is_not_there_is_named(tmp_path):
    async def scenario():
        async with Dcs(free_port()) as dcs:
            file = written(tmp_path, settings_of(dcs.port, 1, enable_node=f"nsu={URI};s=NOPE"))
            with pytest.raises(ConfigError, match="enable_node: there is no such node"):
                await Verifier(load_verifier_config(file)).run(asyncio.Event())

    asyncio.run(scenario())


def test_the_whitelist_takes_the_limits_of_the_plant_where_it_has_none(tmp_path):
    config = load_verifier_config(written(tmp_path, settings_of(4840, 1883)))
    loop = checked_loops(config, read_plant(config))[SP]
    assert (loop.low, loop.high, loop.rate, loop.largest_step) == (70.0, 90.0, 0.1, 5.0)


def test_the_verifier_never_loads_a_model(tmp_path):
    file = written(tmp_path, settings_of(1, 1, interval_s=9))
    code = (
        "import sys; from fusion.cli import main; import fusion.verifier.service; "
        f"assert main(['verify', '--config', {str(file)!r}]) == 2; "
        "print([m for m in ('torch', 'models.plant_model', 'control.advice.planner') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
    assert "interval_s" in done.stderr
