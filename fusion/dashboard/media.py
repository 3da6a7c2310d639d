"""Camera, microphone and point cloud on the page: one element each, drawn by the browser on a canvas."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from html import escape

from nicegui import ui
from nicegui.element import Element

from fusion.dashboard import alarms
from fusion.dashboard.board import SPECTROGRAM_COLUMNS, Board, Picture, Sound
from fusion.dashboard.explain import place_of
from fusion.dashboard.places import Place, Range
from fusion.dashboard.words import SPREADS
from fusion.plant import Modality
from fusion.publish.preview import COLUMN_S


class Cloud(Element, component="cloud.js"):
    """A point cloud that can be turned and zoomed."""

    def show(self, points: bytes) -> None:
        """Draw little-endian float32 x, y, z [m], intensity."""
        self.run_method("show", b64encode(points).decode("ascii"))


class Spectrogram(Element, component="spectrogram.js"):
    """A minute of sound, newest at the right."""

    def append(self, columns: list[list[float]], frequency_hz: list[float]) -> None:
        """Add columns [n][bands] in dB."""
        self.run_method("append", columns, SPECTROGRAM_COLUMNS, frequency_hz, COLUMN_S)

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
        self._shown_sound: tuple[str, int] = ("", 0)
        self._shown_band: Range | None = None

    def refresh(self, board: Board) -> None:
        """Send the browser what is new since the last call."""
        blamed = _blamed(board)
        if name := self._camera.show(board, Modality.VIDEO, board.pictures, blamed):
            self._show_picture(board.pictures[name], blamed.get(name))
        if name := self._microphone.show(board, Modality.AUDIO, board.sounds, blamed):
            self._show_sound(name, board.sounds[name], blamed.get(name))
        if name := self._lidar.show(board, Modality.LIDAR, board.clouds, blamed):
            points = board.clouds[name]
            if points is not self._shown_cloud:
                self._shown_cloud = points
                self._cloud.show(points)

    def _show_picture(self, picture: Picture, found: Place | None) -> None:
        self._frame.set_content(frame(picture.size, found) if found and picture.size else "")
        if picture is self._shown_picture:
            return
        self._shown_picture = picture
        self._image.props["src"] = f"data:{picture.media_type};base64,{b64encode(picture.data).decode('ascii')}"
        self._image.update()

    def _show_sound(self, name: str, sound: Sound, found: Place | None) -> None:
        shown_name, shown = self._shown_sound
        fresh = min(sound.count - shown if name == shown_name else sound.count, len(sound.columns))
        if fresh > 0:
            self._shown_sound = (name, sound.count)
            self._sound.append(list(sound.columns)[-fresh:], sound.frequency_hz)
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

    def show(self, board: Board, modality: Modality, known: Mapping[str, object], blamed: Mapping[str, Place]) -> str:
        """The sensor to show, "" without any; says what of it stands out."""
        name = next((name for name in known if name in blamed), next(iter(known), ""))
        self._panel.set_visibility(bool(known) or bool(board.plant and board.plant.of(modality)))
        self._title.set_text(self._kind if name.lower() in ("", self._kind.lower()) else f"{self._kind} {name}")
        found = blamed.get(name)
        self._note.set_text(
            f"stands out: {found.text or 'as a whole'}" if found else "" if name else "nothing sent yet"
        )
        return name


def _blamed(board: Board) -> dict[str, Place]:
    """What stands out of each medium that an open alarm blames."""
    found: dict[str, Place] = {}
    for entry in alarms.entries(board):
        if entry.anomaly and entry.standing and not entry.shelved:
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
