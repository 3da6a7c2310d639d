"""Who may see the page and who may order: people with passwords, sessions that end, failures that are slowed down.

Without people everyone may do everything, which is for this machine alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fusion.errors import ConfigError
from fusion.files import whole_file

FAILURES = 5
FAILURES_IN_S = 300.0
ADDRESSES = 10_000
SALT_BYTES, COST, BLOCK, PARALLEL = 16, 2**14, 8, 1  # Source: OWASP password storage, scrypt


class Right(StrEnum):
    """What a person may do: look; also order about alarms and advice; also say which model is used."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ENGINEER = "engineer"


@dataclass(frozen=True, slots=True)
class Person:
    """One line of the file of people: name, right, and the password's salted hash."""

    name: str
    right: Right
    hashed: str = ""


def hash_password(password: str, salt: bytes | None = None) -> str:
    """What a file may keep of a password: salt and scrypt, in hexadecimal digits."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    key = hashlib.scrypt(password.encode(), salt=salt, n=COST, r=BLOCK, p=PARALLEL)
    return f"{salt.hex()}${key.hex()}"


def fits(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed."""
    return hmac.compare_digest(hash_password(password, bytes.fromhex(hashed.partition("$")[0])), hashed)


def read_people(file: Path) -> dict[str, Person]:
    """People by name, from lines ``NAME:RIGHT:HASH``.

    Raises:
        ConfigError: the file cannot be read, holds nobody, or a line is not accepted; the text says which.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"users: {file} cannot be read ({error}); `fusion user` writes it") from error
    people = [_person(file, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not people:
        raise ConfigError(f"users: {file} holds nobody; add one with `fusion user NAME --users {file}`")
    return {person.name: person for person in people}


def _person(file: Path, number: int, line: str) -> Person:
    name, right, hashed = [*line.strip().split(":"), "", ""][:3]
    salt, _, key = hashed.partition("$")
    try:
        if name and bytes.fromhex(salt) and bytes.fromhex(key):
            return Person(name, Right(right), hashed)
    except ValueError:
        pass
    raise ConfigError(
        f"users: {file}, line {number}: expected NAME:{' or '.join(Right)}:HASH, as `fusion user` writes it"
    )


def write_person(file: Path, name: str, right: Right, password: str) -> None:
    """Add a person to a file, or change one; the file is for its owner alone.

    Raises:
        ConfigError: a name or password that cannot be, or a file that is none of people.
    """
    if not name or any(sign in name for sign in ":\r\n") or name != name.strip():
        raise ConfigError(f"user {name!r}: not accepted; expected a name without colons")
    if len(password) < 8:
        raise ConfigError(f"user {name}: at least 8 characters are required for a password")
    people = read_people(file) if file.exists() else {}
    people[name] = Person(name, right, hash_password(password))
    with whole_file(file) as aside:
        aside.touch(0o600)
        aside.write_text("".join(f"{p.name}:{p.right}:{p.hashed}\n" for p in people.values()), encoding="utf-8")


@dataclass(slots=True)
class _Session:
    person: Person
    began_s: float
    seen_s: float


class Access:
    """Sessions of ``people``; each ends ``session_s`` after its login, or ``idle_s`` after its last sign of life."""

    def __init__(
        self,
        people: Mapping[str, Person],
        session_s: float = 43_200.0,
        idle_s: float = 1_800.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._people, self._session_s, self._idle_s, self._clock = people, session_s, idle_s, clock
        self._sessions: dict[str, _Session] = {}
        self._failed: dict[str, deque[float]] = {}
        self._nobody = hash_password(secrets.token_hex())  # an unknown name takes as long as a wrong password

    @property
    def needed(self) -> bool:
        """Whether one must log in at all."""
        return bool(self._people)

    def wait_s(self, address: str) -> float:
        """How long an address must wait before it may try again [s]; 0 where it may now."""
        failed = self._failed.get(address, deque())
        while failed and failed[0] < self._clock() - FAILURES_IN_S:
            failed.popleft()
        return failed[0] + FAILURES_IN_S - self._clock() if len(failed) >= FAILURES else 0.0

    def enter(self, name: str, password: str, address: str) -> str:
        """The token of a new session, "" where name or password is wrong; ask ``wait_s`` before."""
        person = self._people.get(name)
        right = fits(password, self._nobody if person is None else person.hashed)
        if person is None or not right:
            if len(self._failed) >= ADDRESSES:
                self._failed.pop(next(iter(self._failed)))
            self._failed.setdefault(address, deque(maxlen=FAILURES)).append(self._clock())
            return ""
        self._failed.pop(address, None)
        self._sessions = {token: s for token, s in self._sessions.items() if self._alive(s)}
        token, now_s = secrets.token_urlsafe(), self._clock()
        self._sessions[token] = _Session(person, now_s, now_s)
        return token

    def who(self, token: str) -> Person | None:
        """The person of a session that has not ended; a sign of life."""
        if not self.needed:
            return Person("", Right.ENGINEER)
        session = self._sessions.get(token)
        if session is None or not self._alive(session):
            self._sessions.pop(token, None)
            return None
        session.seen_s = self._clock()
        return session.person

    def _alive(self, session: _Session) -> bool:
        now_s = self._clock()
        return now_s < session.began_s + self._session_s and now_s < session.seen_s + self._idle_s

    def leave(self, token: str) -> None:
        """End a session."""
        self._sessions.pop(token, None)


class Visit:
    """One open page and whoever looks at it."""

    def __init__(self, access: Access, token: str) -> None:
        self._access, self._token = access, token

    @property
    def person(self) -> Person | None:
        """Who it is; None once the session has ended."""
        return self._access.who(self._token)

    @property
    def name(self) -> str:
        """The name that goes with orders; "" where nobody logs in."""
        return "" if (person := self.person) is None else person.name

    @property
    def may_order(self) -> bool:
        """Whether orders are allowed now."""
        return (person := self.person) is not None and person.right is not Right.VIEWER

    @property
    def may_choose(self) -> bool:
        """Whether another model may be put to use now."""
        return (person := self.person) is not None and person.right is Right.ENGINEER
