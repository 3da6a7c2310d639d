"""Control loops by name and path: which tag is a setpoint, which is measured, which is an output, which says auto.

Knows the words of several languages and the letters of ISA-5.1, and no protocol.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fusion.plant import Role
from fusion.site.found import FoundTag, Kind
from fusion.site.units import AS_LAST_WORD


class Part(StrEnum):
    """What a tag is within its loop."""

    SETPOINT = "setpoint"
    MEASURED = "measured value"
    OUTPUT = "output"
    AUTO = "mode"
    MANUAL = "manual"
    SETTING = "setting"


WORDS: Mapping[Part, str] = {
    Part.SETPOINT: (
        "spint spext spprog spoper spman splocal spremote currentsp activesp targetsp workingsp "
        "sp spt sv rsp lsp csp wsp setpoint setpt setvalue setval set target soll sollwert vorgabe consigne consigna "
        "ref reference puntodeajuste ustavka уставка задание 设定 设定值 给定 给定值 設定 設定値 目標値"
    ),
    Part.MEASURED: (
        "pvin pvact currentvalue pv me meas measured measurement measurements measuredvalue actual act actualvalue "
        "processvalue processvariable ist istwert istwerte messwert mesure medida valor value val x измерение "
        "значение измеренноезначение 测量 测量值 实际值 現在値 計測値"
    ),
    Part.OUTPUT: (
        "cveu mvout op out outp output outputs cv cvout co mv lmn stell stellwert stellgrösse stellgröße stellgroesse "
        "sortie salida выход 输出 输出值 操作量 操作値 出力"
    ),
    Part.AUTO: (
        "autmod autmodop auto automode automatic automatik autoactive inauto isauto automan automanual "
        "autostatus am aut mode md modeact modeactual opmode betriebsart авто режим 自动 自動 模式"
    ),
    Part.MANUAL: "man manual manmode inmanual ismanual hand handbetrieb ручной 手动 手動",
    Part.SETTING: (
        "kp ki kd ti td tn tv gain pgain igain dgain resettime ratetime deadband deadzone hh ll hihi lolo hi lo hilim "
        "lolim hilimit lolimit highlimit lowlimit hialm loalm alarmhigh alarmlow alarmlimit bias filter filtertime "
        "hysteresis ramprate"
    ),
}
PART = {word: part for part, words in WORDS.items() for word in words.split()}
MANUAL = frozenset(word for word, part in PART.items() if part is Part.MANUAL)
PIECES = re.compile(r"[^\W\d_]+|\d+")
UNSPACED = "|".join(word for word in PART if word[0] > "\u2e80")
"""Words of scripts that put no space between words."""
CAMEL = re.compile(r"(?<=[a-zäöüß0-9])(?=[A-ZÄÖÜ])")
ISA = re.compile(r"(?<![A-Za-z])([A-Z])([A-MOQ-TV-Z]{0,3})[-_ .]?(\d{1,5})([A-Z]?)(?![A-Za-z])")
COMMAND = re.compile(r"(?i)(cmd|command|enable|start|stop|befehl|freigabe)")
ACKNOWLEDGES = re.compile(
    r"(?i)(quittier|quittung|acquit|acuse|reconoc|rücksetz|zurücksetz|квитир|确认|复位|確認)"
    r"|(?<![a-z])(ack|acknowledge|acknowledgement|quit|rst|reset)(?![a-z])"
)
MACHINE_LETTERS = "IJSZ"
MACHINE_UNITS = ("A", "/min", "Hz", "kW")
SPREAD_OF_WRITABLE = 0.7

Letters = tuple[str, str, str, str]
"""First letter, further letters, number, suffix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a tag is to control, why, and what is unsure; ``loop`` is what it sets, ``rests`` that it seldom moves.

    ``part`` is what it is within its loop.
    """

    role: Role = Role.MEASURED
    why: str = ""
    doubt: str = ""
    machine: bool = False
    auto_tag: str = ""
    loop: str = ""
    rests: bool = False
    part: Part | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A tag, the loop it belongs to by its name and path, and its part there."""

    tag: FoundTag
    stem: str
    part: Part | None
    word: str


def judge(tags: Sequence[FoundTag]) -> dict[str, Judged]:
    """A role for every tag, by its name."""
    placed = [place(tag) for tag in tags]
    loops: dict[str, list[Placed]] = defaultdict(list)
    for p in placed:
        loops[p.stem].append(p)
    telling = _telling(tags)
    judged = {p.tag.name: _alone(p, telling) for p in placed}
    for p in placed:
        if p.part is Part.SETPOINT:
            _pair(p, loops[p.stem], _near(p, placed), judged)
    for p in placed:
        if p.part is Part.OUTPUT:
            judged[p.tag.name] = _output(p, loops[p.stem], telling)
    return {p.tag.name: replace(judged[p.tag.name], part=p.part) for p in placed}


def place(tag: FoundTag) -> Placed:
    """Where a tag's name, or else a folder of its path, says which part of which loop it is."""
    *folders, own = tag.path
    stem, part, word = _split(own)
    if not stem and folders and _plain(folders[-1]) in PART:  # PV/Value, or PV/CV
        return Placed(tag, _key(folders[:-1]), PART[_plain(folders[-1])], folders[-1])
    if part is not None:
        return Placed(tag, _key([*folders, stem]), part, word)
    for i in reversed(range(len(folders))):
        found = PART.get(_plain(folders[i])) or PART.get(_plain(folders[i]).removesuffix("s"))
        if found is not None:
            return Placed(tag, _key([*folders[:i], *folders[i + 1 :], own]), found, folders[i])
    return Placed(tag, _key(tag.path), None, "")


def _split(name: str) -> tuple[str, Part | None, str]:
    """A name without the word at its end, or else its beginning, that says a part; the part and the word."""
    pieces = [m for piece in re.split(r"[\W_]+", name) for m in CAMEL.split(piece) if m]
    if len(pieces) > 2 and pieces[-1].lower() in AS_LAST_WORD and "_" in name:  # Temp_SP_degC
        return _split(name.rpartition("_")[0])
    for count in (3, 2, 1):
        for cut, rest in ((pieces[-count:], pieces[:-count]), (pieces[:count], pieces[count:])):
            word = "".join(cut)
            part = PART.get(_plain(word)) if len(cut) == count else None
            if part is not None and (rest or count == len(pieces)) and _whole(name, word, cut):
                return " ".join(rest), part, " ".join(cut)
    for glued in (re.fullmatch(r"(.*\d)([A-Za-z]{2,3})", name), re.fullmatch(rf"(.+?)({UNSPACED})", name)):
        if glued and (part := PART.get(glued[2].lower())) is not None:
            return glued[1], part, glued[2]
    return name, None, ""


def _whole(name: str, word: str, cut: Sequence[str]) -> bool:
    """Whether a word may speak: short ones only where they stand apart, at the end or alone."""
    at_end = _plain(name).endswith(_plain(word))
    return at_end or len(word) > 2 or cut[0].isupper()


def _plain(text: str) -> str:
    return "".join(PIECES.findall(text)).lower()


def _key(path: Iterable[str]) -> str:
    return "/".join(key for part in path if (key := _plain(part)))


def _telling(tags: Sequence[FoundTag]) -> bool:
    """Whether access tells setpoints from the rest: some may be written to, and not nearly all."""
    known = [tag.writable for tag in tags if tag.writable is not None]
    return any(known) and sum(known) <= SPREAD_OF_WRITABLE * len(known)


def _alone(placed: Placed, telling: bool) -> Judged:
    """What a tag is by itself."""
    tag = placed.tag
    match placed.part:
        case Part.SETPOINT if telling and not tag.writable:
            return Judged(
                why=f"'{placed.word}' names a setpoint, but it is read-only",
                rests=True,
                doubt="written by another controller? manipulated, if an operator moves it",
            )
        case Part.SETPOINT:
            why = f"'{placed.word}' names a setpoint" + (", writable" if tag.writable and telling else "")
            doubt = (
                ""
                if tag.writable and telling
                else "nothing but its name says that it is moved: access tells nothing here"
            )
            return Judged(role=Role.MANIPULATED, why=why, doubt=doubt, rests=True)
        case Part.SETTING:
            why = f"'{placed.word}' names a setting of a loop"
            return Judged(why=why, doubt="leave it out unless it moves", rests=True)
        case Part.AUTO | Part.MANUAL:
            return Judged(why=f"'{placed.word}' names the mode of a loop", rests=True)
        case None if tag.kind is Kind.TRUTH and tag.writable is not False and _acknowledges(tag):
            return Judged(why="an acknowledgement, no setpoint", rests=True)
        case None if telling and tag.writable:
            return Judged(role=Role.MANIPULATED, why="writable", doubt="its name does not say setpoint")
    machine = _machine(tag)
    doubt = "a command? manipulated, if an operator gives it" if not telling and COMMAND.search(tag.path[-1]) else ""
    return Judged(why=machine, machine=bool(machine), doubt=doubt)


def _pair(setpoint: Placed, loop: Sequence[Placed], near: tuple[str, list[Placed]], judged: dict[str, Judged]) -> None:
    """Judge a setpoint together with what it sets and with the mode of their loop."""
    own, name = judged[setpoint.tag.name], setpoint.tag.name
    measured = [p for p in loop if p.part is Part.MEASURED] or [p for p in loop if p.part is None]
    how = "same loop"
    if not measured and len(near[1]) == 1:
        how, measured = near
    partner = measured[0] if measured else None
    if own.role is not Role.MANIPULATED:
        return
    if partner is not None:
        pv = partner.tag.name
        own = replace(own, why=f"{own.why}; sets {pv}: {how}", loop=pv)
        if judged[pv].role is not Role.MANIPULATED or partner.part is Part.MEASURED or not partner.tag.writable:
            judged[pv] = replace(
                judged[pv], role=Role.CONTROLLED, why=f"{name} is its setpoint: {how}", doubt=_as_sure(own, name)
            )
    mode = next((p for p in loop if p.part is Part.AUTO), None)
    if mode is not None:
        sure = mode.tag.kind is Kind.TRUTH or _plain(mode.tag.states.get(0, "")) in MANUAL
        what = f"0 is {mode.tag.states[0]!r}" if 0 in mode.tag.states else "a number"
        doubt = "" if sure else f"{mode.tag.name}, {what}: does 0 mean that the loop takes no setpoint?"
        own = replace(own, auto_tag=mode.tag.name, doubt="; ".join(d for d in (own.doubt, doubt) if d))
    elif any(p.part is Part.MANUAL for p in loop):
        own = replace(own, doubt="; ".join(d for d in (own.doubt, "its loop says manual, auto_tag needs auto") if d))
    judged[name] = own


def _as_sure(setpoint: Judged, name: str) -> str:
    return f"as unsure as {name}" if setpoint.doubt else ""


def _output(placed: Placed, loop: Sequence[Placed], telling: bool) -> Judged:
    """An output is what a valve or drive is told; without a setpoint in its loop it is what may be moved."""
    what = f"'{placed.word}' names an output"
    if any(p.part is Part.SETPOINT for p in loop):
        return Judged(why=f"{what}: its loop has a setpoint", machine=True)
    if placed.tag.writable and telling:
        return Judged(role=Role.MANIPULATED, why=f"{what}, writable", doubt="its loop has no setpoint")
    return Judged(why=what, machine=True, doubt="manipulated, if an operator moves it")


def _near(setpoint: Placed, placed: Sequence[Placed]) -> tuple[str, list[Placed]]:
    """How measured tags are near to a setpoint that has none in its own loop, and which they are.

    By ISA-5.1 those of the same variable and number, such as TT101 for TIC101.SP; else those in folders beside its own.
    """
    own = isa(setpoint.tag)
    if own is not None and "C" in own[1]:
        sensors = [p for p in placed if p.part in (None, Part.MEASURED) and _senses(isa(p.tag), own)]
        beside = [p for p in sensors if p.tag.path[:-1][:1] == setpoint.tag.path[:-1][:1]]
        if sensors:
            return "same letter and number (ISA-5.1)", beside if len(beside) == 1 else sensors
    above = setpoint.stem.rpartition("/")[0]
    beside = [p for p in placed if above and p.part is Part.MEASURED and above in (p.stem, p.stem.rpartition("/")[0])]
    return "the only measured value beside it", beside


def _senses(letters: Letters | None, controller: Letters) -> bool:
    """Whether a tag is the sensor of a controller: the same variable and number, and neither controller nor valve."""
    if letters is None or (letters[0], *letters[2:]) != (controller[0], *controller[2:]):
        return False
    return "C" not in letters[1] and "V" not in letters[1]


def isa(tag: FoundTag) -> Letters | None:
    """First letter, further letters, number and suffix of a tag that is called by ISA-5.1.

    A folder speaks for a tag that is called by its part alone, such as ``TIC101/PV``; else it names a place.
    """
    for name in reversed(tag.path):
        found = ISA.search(name)
        if found:
            return found[1], found[2], found[3], found[4]
        if _plain(name) not in PART:
            return None
    return None


def _acknowledges(tag: FoundTag) -> bool:
    return any(ACKNOWLEDGES.search(CAMEL.sub(" ", words)) for words in (tag.path[-1], tag.description))


def _machine(tag: FoundTag) -> str:
    """Why a tag says what a valve or drive does; empty where nothing says so."""
    letters = isa(tag)
    if letters is not None and (letters[0] in MACHINE_LETTERS or letters[1][:1] in ("V", "Z")):
        return f"{letters[0]}{letters[1]} is what a valve or drive does (ISA-5.1)"
    if tag.unit in MACHINE_UNITS:
        return f"measured in {tag.unit}: what a drive does"
    return ""
