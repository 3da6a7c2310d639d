"""Camera, microphone and point cloud on the page: one element each, drawn by the browser on a canvas."""

from __future__ import annotations

import io
import time
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from html import escape

import numpy as np
from nicegui import ui
from nicegui.element import Element
from PIL import Image

from fusion.dashboard import alarms
from fusion.dashboard.board import Board
from fusion.dashboard.explain import place_of
from fusion.dashboard.lookback import Scene
from fusion.dashboard.places import Place, Range
from fusion.dashboard.previews import SPECTROGRAM_COLUMNS, Picture, Sound
from fusion.dashboard.words import SPREADS
from fusion.plant import Modality
from fusion.publish.preview import COLUMN_S

CLOUD_EVERY_S = 2.0
WEBP_QUALITY, WEBP_METHOD = 80, 2


class Cloud(Element, component="cloud.js"):
    """A point cloud that can be turned and zoomed."""

    def show(self, points: bytes) -> None:
        """Draw little-endian float32 x, y, z [m], intensity."""
        self.run_method("show", b64encode(packed(points)).decode("ascii"))


class Spectrogram(Element, component="spectrogram.js"):
    """A minute of sound, newest at the right."""

    def append(self, columns: list[list[float]], frequency_hz: list[float], *, afresh: bool) -> None:
        """Add columns [n][bands] in dB, or begin anew with them."""
        whole = [[round(level) for level in column] for column in columns]
        self.run_method("append", whole, SPECTROGRAM_COLUMNS, frequency_hz, COLUMN_S, afresh)

    def outline(self, hz: Range | None) -> None:
        """Frame a band of frequencies, or none."""
        self.run_method("outline", list(hz) if hz else None)


class MediaTiles:
    """The tiles of one open page: of each kind the sensor that an alarm blames, else the first that sends previews."""

    def __init__(self) -> None:
        with ui.element("div").classes("media"):
            self._camera = _Tile("Camera")
            with self._camera.view:
                self._image = ui.element("img").props('alt="camera"')
                self._frame = ui.html("", sanitize=False).classes("frame")
            self._microphone = _Tile("Microphone")
            with self._microphone.view:
                self._sound = Spectrogram()
            self._lidar = _Tile("LiDAR")
            with self._lidar.view:
                self._cloud = Cloud()
        self._shown_picture: Picture | None = None
        self._shown_cloud = b""
        self._shown_sound: tuple[Sound | None, int] = (None, 0)
        self._cloud_s = 0.0
        self._shown_band: Range | None = None

    def refresh(self, board: Board, then: Scene | None = None) -> None:
        """Send the browser what is new since the last call; ``then`` is what was recorded where that is looked at."""
        scene = Scene(board.pictures, board.sounds, board.clouds) if then is None else then
        blamed = _blamed(board) if then is None else {}
        nothing = "nothing sent yet" if then is None else "nothing recorded then"
        if name := self._camera.show(board, Modality.VIDEO, scene.pictures, blamed, nothing):
            self._show_picture(scene.pictures[name], blamed.get(name))
        if name := self._microphone.show(board, Modality.AUDIO, scene.sounds, blamed, nothing):
            self._show_sound(scene.sounds[name], blamed.get(name))
        if name := self._lidar.show(board, Modality.LIDAR, scene.clouds, blamed, nothing):
            self._show_cloud(scene.clouds[name], at_once=then is not None)

    def _show_picture(self, picture: Picture, found: Place | None) -> None:
        self._frame.set_content(frame(picture.size, found) if found and picture.size else "")
        if picture is self._shown_picture:
            return
        self._shown_picture = picture
        self._image.props["src"] = address(picture)
        self._image.update()

    def _show_cloud(self, points: bytes, *, at_once: bool) -> None:
        """A cloud is large and changes slowly."""
        now_s = time.monotonic()
        if points is not self._shown_cloud and (at_once or now_s - self._cloud_s >= CLOUD_EVERY_S):
            self._shown_cloud, self._cloud_s = points, now_s
            self._cloud.show(points)

    def _show_sound(self, sound: Sound, found: Place | None) -> None:
        before, shown = self._shown_sound
        fresh = min(sound.count - shown if sound is before else sound.count, len(sound.columns))
        if fresh > 0 or sound is not before:
            self._shown_sound = (sound, sound.count)
            columns = list(sound.columns)[len(sound.columns) - fresh :]
            self._sound.append(columns, sound.frequency_hz, afresh=sound is not before)
        band = found.hz if found else None
        if band != self._shown_band:
            self._shown_band = band
            self._sound.outline(band)


class _Tile:
    """A titled view that is there only where the plant has such a sensor or one sends."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        with ui.element("div").classes("panel") as self._panel:
            self._title = ui.label(kind).classes("title")
            self.view = ui.element("div").classes("view")
            self._note = ui.label("").classes("stands-out")
        self._panel.set_visibility(False)

    def show(
        self,
        board: Board,
        modality: Modality,
        known: Mapping[str, object],
        blamed: Mapping[str, Place],
        nothing: str,
    ) -> str:
        """The sensor to show, "" without any; says what of it stands out, or why it shows ``nothing``."""
        name = next((name for name in known if name in blamed), next(iter(known), ""))
        self._panel.set_visibility(bool(known) or bool(board.plant and board.plant.of(modality)))
        self._title.set_text(self._kind if name.lower() in ("", self._kind.lower()) else f"{self._kind} {name}")
        found = blamed.get(name)
        self._note.set_text(f"stands out: {found.text or 'as a whole'}" if found else "" if name else nothing)
        self.view.set_visibility(bool(name))
        return name


def _blamed(board: Board) -> dict[str, Place]:
    """What stands out of each medium that an open alarm blames."""
    found: dict[str, Place] = {}
    for entry in alarms.entries(board):
        if entry.anomaly and entry.standing and not entry.aside:
            for blame in entry.anomaly.top_signals:
                if blame.unit == SPREADS:
                    found.setdefault(blame.signal, place_of(board, blame))
    return found


def frame(size: tuple[int, int], found: Place) -> str:
    """The outline of a place over a picture of so many columns and rows; without a place, of the whole picture."""
    columns, rows = size
    left, right = found.columns or (0.0, 1.0)
    top, bottom = found.rows or (0.0, 1.0)
    return (
        f'<svg viewBox="0 0 {columns} {rows}" role="img" aria-label="{escape(found.text, quote=True)}">'
        f'<rect x="{left * columns:.1f}" y="{top * rows:.1f}" width="{(right - left) * columns:.1f}" '
        f'height="{(bottom - top) * rows:.1f}"/></svg>'
    )


@lru_cache(maxsize=16)
def address(picture: Picture) -> str:
    """A picture as the browser is given it: as WebP where that is smaller."""
    kind, data = picture.media_type, picture.data
    stream = io.BytesIO()
    try:
        Image.open(io.BytesIO(data)).save(stream, format="webp", quality=WEBP_QUALITY, method=WEBP_METHOD)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass  # the browser may know better
    else:
        if len(stream.getvalue()) < len(data):
            kind, data = "image/webp", stream.getvalue()
    return f"data:{kind};base64,{b64encode(data).decode('ascii')}"


def packed(points: bytes) -> bytes:
    """A cloud as the browser is given it: lowest value and step of each column, then 16 and 8 bits of each point."""
    cloud = np.frombuffer(points, "<f4").reshape(-1, 4)
    if not len(cloud):
        return b""
    low, span = cloud.min(axis=0), np.ptp(cloud, axis=0)
    step = np.where(span > 0, span, 1.0) / np.array([65535, 65535, 65535, 255])
    whole = np.round((cloud - low) / step)
    head = np.concatenate([low, step]).astype("<f4").tobytes()
    return b"".join((head, whole[:, :3].astype("<u2").tobytes(), whole[:, 3].astype(np.uint8).tobytes()))
