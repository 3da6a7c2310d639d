"""The pasteuriser in real time: a GStreamer RTSP server, one JSON line of values a tenth of a second, faults by UDP.

Runs in the system's Python (`python3 servers.py RTSP_PORT FAULT_PORT SEED`), which has GStreamer's bindings.
"""

import json
import socket
import sys
import threading
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402
from plant import HEIGHT, PICTURES_HZ, SOUND_HZ, STEP_S, TAGS, WIDTH, Ear, Eye, Pasteuriser  # noqa: E402

LAUNCH = (
    f"( appsrc name=eye is-live=true do-timestamp=true format=time "
    f"caps=video/x-raw,format=GRAY8,width={WIDTH},height={HEIGHT},framerate={PICTURES_HZ}/1 ! videoconvert "
    f"! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast bitrate=500 key-int-max=20 "
    f"! rtph264pay name=pay0 pt=96 config-interval=1 "
    f"appsrc name=ear is-live=true do-timestamp=true format=time "
    f"caps=audio/x-raw,format=S16LE,layout=interleaved,rate={SOUND_HZ},channels=1 ! queue ! audioconvert ! {{audio}} )"
)
AUDIO = {
    "aac": "avenc_aac bitrate=64000 ! aacparse ! rtpmp4gpay name=pay1 pt=97",
    "opus": "audioresample ! audio/x-raw,rate=48000 ! opusenc bitrate=48000 ! rtpopuspay name=pay1 pt=97",
    "pcma": "audioresample ! audio/x-raw,rate=8000 ! alawenc ! rtppcmapay name=pay1 pt=8",
}


class Camera:
    """What is served at one address: pushes pictures and sound to whoever watches."""

    def __init__(self, server, place, audio):
        self._lock, self._sinks = threading.Lock(), {}
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(LAUNCH.format(audio=AUDIO[audio]))
        factory.set_shared(True)
        factory.connect("media-configure", self._configure)
        server.get_mount_points().add_factory(place, factory)

    def _configure(self, _factory, media):
        whole = media.get_element()
        with self._lock:
            self._sinks = {name: whole.get_child_by_name(name) for name in ("eye", "ear")}
        media.connect("unprepared", self._forget)

    def _forget(self, _media):
        with self._lock:
            self._sinks = {}

    def push(self, picture, sound):
        with self._lock:
            for name, data in (("eye", picture), ("ear", sound)):
                if name in self._sinks:
                    self._sinks[name].emit("push-buffer", Gst.Buffer.new_wrapped(data.tobytes()))


def obey(plant, port):
    """Take orders such as `fouling 0.8` or `clear`."""
    heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    heard.bind(("127.0.0.1", port))
    while True:
        words = heard.recv(200).decode().split()
        plant.order(words[0], float(words[1]) if len(words) > 1 else 1.0)


def main():
    rtsp_port, fault_port, seed = map(int, sys.argv[1:4])
    audio = sys.argv[4] if len(sys.argv) > 4 else "aac"
    Gst.init(None)
    plant = Pasteuriser(seed)
    eye, ear = Eye(plant), Ear(plant)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(rtsp_port))
    camera = Camera(server, "/cam1/main", audio)
    server.attach(None)
    threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
    threading.Thread(target=obey, args=(plant, fault_port), daemon=True).start()
    print(json.dumps(TAGS), flush=True)
    due = time.monotonic()
    while True:
        plant.step()
        camera.push(eye.picture(), ear.sound())
        values = plant.values() | {"faults": plant.faults, "setpoints": plant.flow_loop.setpoint}
        print(json.dumps(values), flush=True)
        due += STEP_S
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main()
