"""The JSON Schema of everything that is said and heard over the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from fusion.publish.messages import KINDS
from fusion.publish.orders import (
    AlarmOrderMessage,
    AnswerMessage,
    MarkOrderMessage,
    ModeOrderMessage,
    QuestionMessage,
    VerifierOrderMessage,
)


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema of every kind of message, by file name."""
    known: dict[str, type[msgspec.Struct]] = {
        **KINDS,
        "answer": AnswerMessage,
        "whatif_request": QuestionMessage,
        "mode_order": ModeOrderMessage,
        "verifier_order": VerifierOrderMessage,
        "alarm_order": AlarmOrderMessage,
        "mark_order": MarkOrderMessage,
    }
    return {f"{kind}.json": msgspec.json.schema(message) for kind, message in known.items()}


def write_schemas(folder: Path) -> None:
    """Write the JSON Schemas, one file per kind of message."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2) + "\n", encoding="ascii")
