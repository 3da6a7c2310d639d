"""Camera, microphone and point cloud on the page: one element each, drawn by the browser on a canvas."""

from __future__ import annotations

from base64 import b64encode

from nicegui import ui
from nicegui.element import Element

from fusion.dashboard.board import SPECTROGRAM_COLUMNS, Board, Picture, Sound
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


class MediaTiles:
    """The tiles of one open page: the first camera, microphone and LiDAR that send previews."""

    def __init__(self, board: Board) -> None:
        with ui.element("div").classes("media"):
            self._camera_title, camera = _tile("Camera", _expected(board, Modality.VIDEO))
            with camera:
                self._camera = ui.element("img").props('alt="camera"')
            self._sound_title, sound = _tile("Microphone", _expected(board, Modality.AUDIO))
            with sound:
                self._sound = Spectrogram()
            self._cloud_title, cloud = _tile("LiDAR", _expected(board, Modality.LIDAR))
            with cloud:
                self._cloud = Cloud()
        self._shown_picture: Picture | None = None
        self._shown_cloud = b""
        self._shown_columns = 0

    def refresh(self, board: Board) -> None:
        """Send the browser what is new since the last call."""
        for name, picture in list(board.pictures.items())[:1]:
            self._show_picture(name, picture)
        for name, sound in list(board.sounds.items())[:1]:
            self._show_sound(name, sound)
        for name, points in list(board.clouds.items())[:1]:
            if points is not self._shown_cloud:
                self._shown_cloud = points
                self._cloud_title.set_text(_titled("LiDAR", name))
                self._cloud.show(points)

    def _show_picture(self, name: str, picture: Picture) -> None:
        if picture is self._shown_picture:
            return
        self._shown_picture = picture
        self._camera_title.set_text(_titled("Camera", name))
        self._camera.props["src"] = f"data:{picture.media_type};base64,{b64encode(picture.data).decode('ascii')}"
        self._camera.update()

    def _show_sound(self, name: str, sound: Sound) -> None:
        fresh = min(sound.count - self._shown_columns, len(sound.columns))
        if fresh <= 0:
            return
        self._shown_columns = sound.count
        self._sound_title.set_text(_titled("Microphone", name))
        self._sound.append(list(sound.columns)[-fresh:], sound.frequency_hz)


def _expected(board: Board, modality: Modality) -> bool:
    """Whether the plant may have such a sense."""
    return board.plant is None or bool(board.plant.of(modality))


def _tile(title: str, shown: bool) -> tuple[ui.label, ui.element]:
    with ui.element("div").classes("panel") as panel:
        panel.set_visibility(shown)
        label = ui.label(title).classes("title")
        return label, ui.element("div").classes("view")


def _titled(kind: str, name: str) -> str:
    return kind if name.lower() == kind.lower() else f"{kind} {name}"
