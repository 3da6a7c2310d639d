"""What `fusion discover` says on the screen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from fusion.site.found import Found, FoundSignal
from fusion.site.write_up import Written


def table(found: Sequence[Found], written: Written) -> None:
    """Print how many signals of which kind each address has, and how many are unsure."""
    made = Table(Column("address", overflow="fold"), "signals", "sure", "unsure", "kinds")
    for one in found:
        signals = written.signals[one.url]
        unsure = sum(bool(s.doubts) for s in signals)
        made.add_row(one.url, str(len(signals)), str(len(signals) - unsure), str(unsure), _kinds(signals))
    if found:
        Console().print(made)


def _kinds(signals: Iterable[FoundSignal]) -> str:
    kinds = Counter(s.signal.role.value if not s.signal.shape else s.signal.modality.value for s in signals)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def outcome(site: Path, found: Sequence[Found], written: Written) -> list[str]:
    """Remarks, the files that were written, and what to do next."""
    lines = [f"{one.url}: {remark}" for one in found for remark in one.remarks]
    lines += [f"{one.url}: left out, {reason}: {count}" for one in found for reason, count in one.left_out.items()]
    if written.known:
        lines.append(f"{written.known} signals are in {site} already and were left as they are")
    lines += [f"written: {file}" for file in written.files]
    lines += [f"written beside what you wrote, take over what you like: {file}" for file in written.aside]
    if not written.files and not written.aside:
        return [*lines, "nothing new was found"]
    first = (written.aside + written.files)[0]
    return [*lines, f"next: correct what is marked unsure in {first}, then fusion doctor {site} and fusion up {site}"]
