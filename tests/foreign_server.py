"""An OPC UA server of a plant we do not know: 50 tags as other people build them, with what is true of each."""

import asyncio
import contextlib
import math
import threading
from dataclasses import dataclass

from asyncua import Server, ua

from fusion.cli import main
from fusion.site.units import BY_CODE
from tests.contract.peers import free_port

CODES = {unit: code for code, unit in BY_CODE.items()}


@dataclass(frozen=True)
class Tag:
    """``path`` below Objects; ``unit`` and ``role`` are the truth, ``code`` or ``text`` how the server says that."""

    path: str
    unit: str = "1"
    role: str = "measured"
    code: bool = True
    text: str = ""
    range: tuple[float, float] | None = None
    write: bool = False
    kind: str = "Double"
    still: bool = False
    words: str = ""
    auto: str = ""


def loop(path, unit, low, high, names=("PV", "SP", "OP"), mode="", text=""):
    """A controller as most systems show it."""
    pv, sp, op = names
    yield Tag(f"{path}/{pv}", unit, "controlled", range=(low, high), code=not text, text=text)
    yield Tag(
        f"{path}/{sp}",
        unit,
        "manipulated",
        range=(low, high),
        write=True,
        still=True,
        code=not text,
        text=text,
        auto=mode,
    )
    yield Tag(f"{path}/{op}", "%", range=(0, 100))
    if mode:
        yield Tag(f"{path}/{mode}", kind="Boolean", still=True)


TAGS = (
    *loop("Line1/TIC-101", "Cel", 0, 150, mode="Auto"),
    *loop("Line1/FIC-102", "m3/h", 0, 80),
    *loop("Line2/TIC-101", "Cel", 0, 150),
    *loop("Kessel/Druckregler", "bar", 0, 16, ("Istwert", "Sollwert", "Stellgröße"), mode="Automatik"),
    *loop("Реактор/Температура", "Cel", 0, 300, ("Значение", "Уставка", "Выход")),
    *loop("储罐/液位", "mm", 0, 4000, ("测量值", "设定值", "输出值"), mode="自动"),
    Tag("Skid/LIC201.SP", "%", "manipulated", range=(0, 100), write=True, still=True),
    Tag("Skid/LT201", "%", "controlled", range=(0, 100), words="Tank level"),
    Tag("Skid/Water Temperature Setpoint", "[degF]", "manipulated", range=(60, 200), write=True, still=True),
    Tag("Skid/Water Temperature", "[degF]", "controlled", range=(32, 250)),
    Tag("Line1/PT-103", "kPa", range=(0, 1000)),
    Tag("Line1/FT-104", "kg/h", text="kg/h", code=False, range=(0, 500)),
    Tag("Line1/AT-105", "[pH]", range=(0, 14)),
    Tag("Line1/TT-106", "Cel", text="°C", code=False, range=(-20, 150)),
    Tag("Line1/FT-107", "m3/h", text="m³/h", code=False),
    Tag("Line1/IT-108", "A", range=(0, 40), words="Pump current"),
    Tag("Line1/ST-109", "/min", range=(0, 3000), words="Fan speed"),
    Tag("Line1/VT-110", "mm/s", range=(0, 20), words="Vibration"),
    Tag("Line1/XV-111", kind="Boolean"),
    Tag("Line1/Pump/Running", kind="Boolean"),
    Tag("Line2/PT-103", "kPa", range=(0, 1000)),
    Tag("Line2/CT-112", "S/m", range=(0, 5)),
    Tag("Line2/LT-113", "m", range=(0, 6)),
    Tag("Line2/WT-114", "kg", range=(0, 2000)),
    Tag("Line2/DT-115", "kg/m3", range=(600, 1400)),
    Tag("Line2/JT-116", "kW", range=(0, 90), words="Drive power"),
    Tag("Line2/Counter", kind="Int32"),
    Tag("Line2/QT-117", "mg/L", text="mg/l", code=False, range=(0, 50)),
    Tag("Line2/TT-118", "Cel", code=False, words="Bearing temperature [°C]", range=(0, 120)),
    Tag("Line2/FIC-119/SP", "L/min", "measured", range=(0, 60), still=True, words="written by the level controller"),
    Tag("Line2/FIC-119/PV", "L/min", range=(0, 60)),
    Tag("Line1/FIC-102/Kp", still=True, write=True),
    Tag("Line2/HeaterEnable", role="manipulated", kind="Boolean", still=True, write=True),
    Tag("Line2/TT-120", "degX", text="degX", code=False, range=(0, 10)),
    Tag("Line2/Oven/Zone 1/Temperature", "Cel", "controlled", range=(0, 500)),
    Tag("Line2/Oven/Zone 1/TemperatureSetpoint", "Cel", "manipulated", range=(0, 500), write=True, still=True),
)


class ForeignServer:
    """The server; ``turn`` moves whatever is not still, and ``nodes`` are by path."""

    URI = "urn:somebody:else"

    def __init__(self, tags=TAGS):
        self.url = f"opc.tcp://127.0.0.1:{free_port()}"
        self.tags, self.nodes, self.turns = tags, {}, 0

    async def __aenter__(self):
        self._server = Server()
        await self._server.init()
        self._server.set_endpoint(self.url)
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self._index = await self._server.register_namespace(self.URI)
        self._folders = {"": self._server.nodes.objects}
        for tag in self.tags:
            await self.add(tag)
        await self._server.start()
        return self

    async def __aexit__(self, *_):
        await self._server.stop()

    async def folder(self, path):
        if path not in self._folders:
            above, _, name = path.rpartition("/")
            self._folders[path] = await (await self.folder(above)).add_folder(self._index, name)
        return self._folders[path]

    async def add(self, tag):
        above, _, name = tag.path.rpartition("/")
        kind = ua.VariantType[tag.kind]
        start = {"Boolean": True, "Int32": 3, "String": "x"}.get(tag.kind, self._value(tag, 0))
        node = await (await self.folder(above)).add_variable(self._index, name, start, kind)
        self.nodes[tag.path] = node
        if tag.words:
            text = ua.DataValue(ua.Variant(ua.LocalizedText(tag.words)))
            await node.write_attribute(ua.AttributeIds.Description, text)
        if (tag.code and tag.unit in CODES and tag.unit != "1") or tag.text:
            unit_id = int.from_bytes(CODES[tag.unit].encode(), "big") if tag.code else -1
            said = ua.LocalizedText(tag.text or "as coded")
            await node.add_property(0, "EngineeringUnits", ua.EUInformation(UnitId=unit_id, DisplayName=said))
        if tag.range:
            await node.add_property(0, "EURange", ua.Range(*map(float, tag.range)))
        if tag.write:
            await node.set_writable()

    @staticmethod
    def _value(tag, turn):
        low, high = tag.range or (0.0, 10.0)
        return (low + high) / 2 + (0.0 if tag.still else 0.1 * (high - low) * math.sin(turn + len(tag.path)))

    async def turn(self):
        self.turns += 1
        for tag in self.tags:
            if not tag.still and tag.kind == "Double":
                await self.nodes[tag.path].write_value(self._value(tag, self.turns))


class Background:
    """An asynchronous server on a thread of its own, with ``turn`` called ten times a second."""

    def __init__(self, server):
        self.server = server
        self._loop = asyncio.new_event_loop()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(120)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()

    async def _serve(self):
        async with self.server:
            self._ready.set()
            while not self._stop.is_set():
                await self.server.turn()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), 0.1)

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)


def discover(site, *urls, seconds=1.5, options=("--insecure",)):
    return main(["discover", *urls, "--site", str(site), "--seconds", str(seconds), *options])
