"""Small analytic worlds for the tests of control: first-order plants with dead time, and their declarations."""

import torch

from fusion.plant import Gain, Modality, Plant, Role, Signal
from fusion.records import ACTION_STEP_S
from fusion.targets import Target

HORIZON_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 600.0)
TARGETS = (
    Target(signal="T", setpoint=85.0, scale=2.0, weight=1.0, high=95.0, low=70.0, backoff=1.5),
    Target(signal="L", low=0.2, high=0.9, backoff=0.03),
)
GAINS = (
    Gain(manipulated="T.SP", controlled="T", sign=1, low=0.5, high=1.5),
    Gain(manipulated="L.SP", controlled="L", sign=1, low=0.5, high=1.5),
    Gain(manipulated="L.SP", controlled="T", sign=0),
)


def small_plant(targets=TARGETS, gains=GAINS):
    return Plant(
        name="small",
        signals=(
            Signal(name="T", unit="Cel", role=Role.CONTROLLED, low=0, high=120),
            Signal(name="L", role=Role.CONTROLLED, low=0, high=1),
            Signal(name="F", unit="kg/s", low=0, high=2),
            Signal(name="camera", modality=Modality.VIDEO, shape=(8, 8), period_s=0.1),
            Signal(name="microphone", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
            Signal(name="T.SP", unit="Cel", role=Role.MANIPULATED, low=70, high=90, max_rate=0.05),
            Signal(name="L.SP", role=Role.MANIPULATED, low=0.3, high=0.8, max_rate=0.002),
            Signal(name="refill", role=Role.MANIPULATED, low=0, high=1),
        ),
        gains=gains,
        targets=targets,
    )


class LinearWorld:
    """Signals T, L, F, each a first-order lag with dead time of the action path; exact."""

    def __init__(
        self,
        state=(80.0, 0.6, 0.5),
        action=(80.0, 0.6),
        gain=((1.0, 0.0), (0.0, 1.0), (0.02, 0.0)),
        lag_s=120.0,
        dead_s=10.0,
        band=0.2,
    ):
        self.horizon_s, self.signals, self.manipulated = HORIZON_S, ("T", "L", "F"), ("T.SP", "L.SP")
        self.current_action = torch.tensor(action)
        self._state, self._gain = torch.tensor(state), torch.tensor(gain)
        self._band = torch.tensor([band, band * 0.02, band * 0.02]) * torch.linspace(0.2, 1, len(HORIZON_S))[:, None]
        self.course_s = tuple(ACTION_STEP_S * k for k in range(1, 61))
        self._weights = {at: step_response(at, lag_s, dead_s) for at in (self.horizon_s, self.course_s)}
        self.limit = 1.0
        self.calls = 0

    def rollout(self, action_NKA):
        self.calls += 1
        return self.foretold(action_NKA, self.horizon_s)

    def course(self, action_NKA):
        return self.foretold(action_NKA, self.course_s)

    def foretold(self, action_NKA, at_s):
        change_NKA = action_NKA - self.current_action
        steps_NKA = torch.diff(change_NKA, dim=1, prepend=torch.zeros_like(change_NKA[:, :1]))
        return self._state + torch.einsum("hk,nka,sa->nhs", self._weights[at_s], steps_NKA, self._gain)

    def fits(self, action_NKA):
        return self.course(action_NKA)[None][:0]

    def half_band(self):
        return self._band

    def support(self, action_NKA):
        return torch.full((len(action_NKA),), 0.5) / self.limit


def step_response(horizon_s, lag_s, dead_s, steps=60):
    """Response [H, K] at each horizon to a unit step at each time of the action grid."""
    since = torch.tensor(horizon_s)[:, None] - ACTION_STEP_S * torch.arange(steps)[None] - dead_s
    return 1 - torch.exp(-since.clamp(min=0) / lag_s)
