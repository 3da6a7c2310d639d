"""Records for tests of the wire and the page: a small kiln, and a lime line with a past, a fault and advice."""

import math
import socket
import time

import numpy as np

from fusion.alarms import Alarm
from fusion.health import Health, PlantState, SourceHealth, SourceState
from fusion.plant import Gain, Modality, Plant, Role, Signal
from fusion.prospects import Prospect, Question, refused
from fusion.publish.encoding import energy_message
from fusion.publish.messages import SurpriseOut
from fusion.records import (
    NS_PER_S,
    Anomaly,
    AnomalyKind,
    AnomalyState,
    Forecast,
    HoldReason,
    Move,
    Recommendation,
    SignalBlame,
    Verdict,
)
from fusion.targets import Target
from tests.grid_runs import frame_of

KILN = Plant(
    name="kiln",
    signals=(
        Signal(name="TT1", unit="Cel", role=Role.CONTROLLED, low=0, high=120),
        Signal(name="IT1", unit="A"),
        Signal(name="TIC1.SP", unit="Cel", role=Role.MANIPULATED, low=70, high=90, max_rate=0.1),
        Signal(name="camera", modality=Modality.VIDEO, shape=(96, 96), period_s=0.1),
        Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
    ),
)
T0 = 1_800_000_000 * NS_PER_S


def health(state="online", t_ns=T0):
    source = SourceHealth(
        name="plc",
        state=SourceState.LIVE,
        alive=True,
        rate_hz=12.3456789,
        expected_hz=12.0,
        age_s=None,
        received=10,
        dropped={"overflow": 2},
        epoch=1,
        clock_offset_s=float("nan"),
    )
    return Health(
        t_ns=t_ns,
        state=state,
        sources=(source,),
        latency_p50_s=0.01,
        latency_p99_s=0.05,
        ticks=100,
        skipped_ticks=1,
        uptime_s=100.0,
        model_id="m1",
        calibrated_hours=3.0,
        licence="shadow",
    )


def anomaly(name="a1", state=AnomalyState.RAISED, t_ns=T0):
    return Anomaly(
        id=name,
        t_onset_ns=t_ns - 5 * NS_PER_S,
        t_ns=t_ns,
        state=state,
        p_value=1e-6,
        kind=AnomalyKind.PROCESS,
        by_modality={"process": 0.7, "audio": 0.3},
        top_signals=(SignalBlame(signal="TT1", residual=-4.25, share=0.6),),
        energies=(("process.spe", 3.5),),
        model_id="m1",
    )


def forecast(t_ns=T0):
    mean = np.array([[80.0, 4.0, 82.0], [81.0, np.nan, 82.0]])
    return Forecast(
        t_ns=t_ns,
        horizon_s=(1.0, 600.0),
        signals=("TT1", "IT1", "TIC1.SP"),
        mean=mean,
        low=mean - 1,
        high=mean + np.inf,
    )


def recommendation(t_ns=None, valid_s=60.0, verdict=Verdict.ADVISE):
    t_ns = time.time_ns() if t_ns is None else t_ns
    move = Move(signal="TIC1.SP", current=82.0, recommended=81.0, unit="Cel", low=70.0, high=90.0, rate=0.1)
    hold = verdict is Verdict.HOLD
    return Recommendation(
        id=f"r{t_ns}",
        sequence=7,
        t_ns=t_ns,
        valid_until_ns=t_ns + int(valid_s * NS_PER_S),
        verdict=verdict,
        reason=HoldReason.ANOMALY if hold else None,
        text="lower the temperature",
        moves=() if hold else (move,),
        expected=None if hold else forecast(t_ns),
        baseline=forecast(t_ns),
        gain=3.0,
        gain_low=1.0,
        gain_high=5.0,
        binding=(),
        stale=(),
        licence="advise",
        model_id="m1",
        plant_fingerprint=KILN.fingerprint,
        rollback={"TIC1.SP": 82.0},
    )


def prospect(refusal=None, t_ns=T0):
    asked = Question(id="q1", moves={"TIC1.SP": 81.0}, by="kim")
    if refusal is not None:
        return refused(asked, t_ns, refusal, "no", "m1")
    advice = recommendation(t_ns)
    return Prospect(
        id="q1",
        by="kim",
        t_ns=t_ns,
        model_id="m1",
        moves=advice.moves,
        moved=advice.expected,
        baseline=advice.baseline,
        gain=(3.0, 1.0, 5.0),
        binding=("TT1 high",),
        support=0.7,
        stale=("IT1",),
    )


def frame(t_ns=T0):
    return frame_of(KILN, t_ns, {"TT1": 80.123456789, "IT1": 4.5, "camera": np.zeros((10, 96, 96), np.uint8)})


# -- the lime line

CONTROLLED = {
    "TT101": ("slaker temperature", "Cel", 82.0, 0.8),
    "LT101": ("slaker level", "1", 0.6, 0.02),
    "DT201": ("tank solids fraction", "1", 0.17, 0.004),
    "LT201": ("tank level", "1", 0.6, 0.05),
}
SETPOINTS = {"TIC101.SP": ("Cel", 82.0), "LIC101.SP": ("1", 0.6), "DIC201.SP": ("1", 0.17), "LIC201.SP": ("1", 0.6)}
HORIZON_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 600.0)
MODALITIES = ("process", "video", "audio", "lidar")

PLANT = Plant(
    name="lime",
    signals=(
        *(
            Signal(name=name, unit=unit, description=text, role=Role.CONTROLLED)
            for name, (text, unit, _, _) in CONTROLLED.items()
        ),
        Signal(name="IT101", unit="A", description="feeder current"),
        Signal(name="IT103", unit="A", description="agitator current"),
        Signal(name="FT102", unit="L/s", description="slurry flow"),
        *(
            Signal(name=name, unit=unit, role=Role.MANIPULATED, low=0.0, high=100.0, max_rate=0.1)
            for name, (unit, _) in SETPOINTS.items()
        ),
        Signal(name="camera", modality=Modality.VIDEO, shape=(96, 96), period_s=0.1),
        Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
        Signal(name="silo_lidar", modality=Modality.LIDAR, shape=(5760, 4), period_s=0.2),
    ),
    gains=(Gain(manipulated="TIC101.SP", controlled="TT101", sign=1),),
    targets=(Target(signal="TT101", low=76.0, high=88.0),),
)


class Story:
    """A plant with a past, a fault and advice, as records at any moment."""

    def __init__(self, start_ns):
        self.start_ns = start_ns
        self.random = np.random.default_rng(1)

    def frame(self, s):
        values = {}
        for i, (name, (_, _, middle, swing)) in enumerate(CONTROLLED.items()):
            values[name] = middle + swing * math.sin(s / (90 + 40 * i) + i) + self.random.normal(0, swing / 15)
        values |= {name: value for name, (_, value) in SETPOINTS.items()}
        if s > 500:
            values["TIC101.SP"] = 83.0
        values |= {"IT101": 4 + math.sin(s / 50) / 3, "IT103": 12 + math.cos(s / 70), "FT102": 3.3}
        return frame_of(PLANT, self.at(s), values, age_s=0.4)

    def at(self, s):
        return self.start_ns + int(s * NS_PER_S)

    def energy(self, s):
        grown = {"process": 1 + max(0.0, (s - 700) / 25), "audio": 0.8 + max(0.0, (s - 740) / 50)}
        found = [
            SurpriseOut(
                name=name,
                modality=name,
                value=grown.get(name, 0.9) * (1 + 0.3 * abs(self.random.normal())),
                limit=4.0,
                p_value=0.2 if grown.get(name, 0) < 4 else 1e-5,
            )
            for name in MODALITIES
        ]
        return energy_message(PLANT, self.at(s), found, found, p_value=1e-4, p_limit=1e-3, model_id="m-4711")

    def forecast(self, s, shift=0.0):
        names = tuple(CONTROLLED)
        mean = np.array(
            [[CONTROLLED[n][2] + shift * CONTROLLED[n][3] * math.log1p(h) / 6 for n in names] for h in HORIZON_S]
        )
        width = np.array([[CONTROLLED[n][3] * (0.2 + math.log1p(h) / 8) for n in names] for h in HORIZON_S])
        return Forecast(
            t_ns=self.at(s), horizon_s=HORIZON_S, signals=names, mean=mean, low=mean - width, high=mean + width
        )

    def anomaly(self, s, state=AnomalyState.RAISED, name="a-17", earlier="", revision=""):
        return Anomaly(
            id=name,
            t_onset_ns=self.at(s) - 95 * NS_PER_S,
            t_ns=self.at(s),
            state=state,
            p_value=3.2e-6,
            kind=AnomalyKind.PROCESS,
            by_modality={"process": 0.58, "audio": 0.27, "video": 0.1, "lidar": 0.05},
            top_signals=(
                SignalBlame(signal="IT103", residual=3.42, share=0.41, expected=12.03, seen=15.45),
                SignalBlame(signal="TT101", residual=-1.7, share=0.17, expected=82.4, seen=80.7),
                SignalBlame(signal="microphone", residual=6.1, share=0.27, where="mel mean 14"),
            ),
            energies=(("cross.microphone.0.1", 3.4), ("relation.shift", 1.9)),
            model_id="m-4711",
            earlier=earlier,
            revision=revision,
        )

    def alarm(self, s, anomaly=None, **life):
        anomaly = anomaly or self.anomaly(s)
        cleared = anomaly.t_ns if anomaly.state is AnomalyState.CLEARED else None
        return Alarm(**{"anomaly": anomaly, "raised_ns": anomaly.t_onset_ns, "cleared_ns": cleared, **life})

    def advice(self, s, verdict=Verdict.ADVISE, valid_s=120):
        hold = verdict is Verdict.HOLD
        moves = (
            Move(signal="TIC101.SP", current=83.0, recommended=81.4, unit="Cel", low=74.0, high=90.0, rate=0.05),
            Move(signal="LIC201.SP", current=0.6, recommended=0.52, unit="1", low=0.35, high=0.8, rate=0.001),
        )
        return Recommendation(
            id=f"r-{s}",
            sequence=12,
            t_ns=self.at(s),
            valid_until_ns=self.at(s + valid_s),
            verdict=verdict,
            reason=HoldReason.ANOMALY if hold else None,
            text="" if hold else "Slaking runs hotter than the slurry needs; a lower setpoint saves lime.",
            moves=() if hold else moves,
            expected=None if hold else self.forecast(s, -1.5),
            baseline=None if hold else self.forecast(s, 1.0),
            gain=3.1,
            gain_low=0.4,
            gain_high=5.9,
            binding=("DT201 low",),
            stale=(),
            licence="advise",
            model_id="m-4711",
            plant_fingerprint=PLANT.fingerprint,
            requires=("TIC101 in cascade",),
            rollback={"TIC101.SP": 83.0, "LIC201.SP": 0.6},
        )

    def prospect(self, s, question="q-1"):
        return Prospect(
            id=question,
            by="kim",
            t_ns=self.at(s),
            model_id="m-4711",
            moves=self.advice(s).moves,
            moved=self.forecast(s, -1.5),
            baseline=self.forecast(s, 1.0),
            gain=(3.1, 0.4, 5.9),
            binding=("DT201 low",),
            support=0.6,
        )

    def health(self, s, state="online", plant_state=PlantState.NORMAL, **rest):
        sources = [
            ("plc", SourceState.LIVE, 41.2, 42.0, 0.3, {}),
            ("dcs-mqtt", SourceState.LIVE, 10.0, 10.0, 0.6, {"late": 3}),
            ("camera", SourceState.LIVE, 10.0, 10.0, 0.1, {"overflow": 12}),
            ("microphone", SourceState.LIVE, 10.0, 10.0, 0.1, {}),
            ("silo_lidar", SourceState.STALE, 0.0, 5.0, 7.3, {}),
        ]
        return Health(
            t_ns=self.at(s),
            state=state,
            sources=tuple(
                SourceHealth(
                    name=name,
                    state=kind,
                    alive=kind is SourceState.LIVE,
                    rate_hz=rate,
                    expected_hz=expected,
                    age_s=age,
                    received=1000,
                    dropped=dropped,
                    epoch=1,
                    clock_offset_s=0.012,
                    message="" if kind is SourceState.LIVE else "no packet on UDP 2368 for 7 s",
                )
                for name, kind, rate, expected, age, dropped in sources
            ),
            **{
                "latency_p50_s": 0.021,
                "latency_p99_s": 0.044,
                "ticks": int(s),
                "skipped_ticks": 0,
                "uptime_s": s,
                "model_id": "m-4711",
                "calibrated_hours": 26.0,
                "licence": "advise",
                "plant_state": plant_state,
                **rest,
            },
        )

    def picture(self):
        y, x = np.mgrid[0:96, 0:96]
        shade = 90 + 60 * np.exp(-((x - 48) ** 2 + (y - 60) ** 2) / 500) + self.random.normal(0, 6, (96, 96))
        shade[30:36] = 180
        return shade.clip(0, 255).astype(np.uint8)

    def sound(self):
        t = np.arange(16000) / 16000
        hum = 0.2 * np.sin(2 * np.pi * 100 * t) + 0.1 * np.sin(2 * np.pi * 1480 * t + 3 * np.sin(6 * t))
        return hum + self.random.normal(0, 0.02, len(t))

    def cloud(self):
        angle, height = self.random.uniform(0, 2 * np.pi, 3000), self.random.uniform(0, 4, 3000)
        wall = np.stack([1.5 * np.cos(angle), 1.5 * np.sin(angle), height, np.full(3000, 20.0)], axis=1)
        radius = 1.5 * np.sqrt(self.random.uniform(0, 1, 2500))
        heap = np.stack(
            [radius * np.cos(angle[:2500]), radius * np.sin(angle[:2500]), 2 - 0.6 * radius, np.full(2500, 60.0)],
            axis=1,
        )
        return np.concatenate([wall, heap])


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def listening(port):
    with socket.socket() as sock:
        sock.settimeout(0.5)
        return sock.connect_ex(("127.0.0.1", port)) == 0


def until(condition, what, timeout_s=15.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)
