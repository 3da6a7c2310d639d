"""The card of a fleet model: what it was made of, what it knows, and what it does not."""

from __future__ import annotations

from models.actions import HORIZONS
from models.fleet.model import FleetModel

CARD = "MODEL_CARD.md"


def card_text(model: FleetModel) -> str:
    """The card as Markdown; every number in it is of this model."""
    card, ridge = model.card, model.ridge
    widths = ", ".join(f"{k * ridge.step_s:g} s {w:.2f}" for k, w in zip(HORIZONS, model.usual.wide, strict=True))
    kinds = ", ".join(sorted(set(ridge.kinds.tags.quantities)))
    return f"""# Fleet model {model.model_id}

- **What for**: forecasts of process tags for a plant of which only minutes are known, at a step of {ridge.step_s:g} s.
- **Made of**: {card["plants"]} plants, {card["hours"]} h in all: {card["made_of"]}.
- **Knows**: {len(ridge.kinds.tags)} kinds of tags and {len(ridge.kinds.actions)} of manipulated signals ({kinds}).
- **Parts**: a ridge on pooled moments (penalty {ridge.penalty:g}) and a network of {card["parameters"]} parameters,
  in {card["seconds"]:g} s. Weights are safetensors, described and hashed in `model.json`.
- **Bands**: 90 %, from plants that were held out; times the width that a plant's own minutes tell: {widths}.
{_states(model)}- **Does not know**: plants of another kind than those it was made of; there its word is gated by the
  plant's own minutes, to persistence where it is no use. Nor pictures, sound, clouds and other steps. It raises no
  alarms.
- **Judge it**: `fusion fleet evaluate --model FOLDER`; how it works: docs/fleet.md.
"""


def _states(model: FleetModel) -> str:
    """Which hidden states it tells, as one line of the card; "" of none."""
    if model.states is None or not model.states.readings:
        return ""
    learned = model.card["states"]
    told = ", ".join(
        f"{r.state.words} (± {float(r.state.shown(r.wide * r.usual[0])):.2g} {r.state.unit} where nothing has changed)"
        for r in model.states.readings
    )
    return f"""- **Hidden states**: how far these are from what they were in the plant's first half hour, with the 90 %
  interval: {told}.
  Learned on {learned["plants"]} simulated lines whose states are known, on {learned["days"]} later days of each.
"""
