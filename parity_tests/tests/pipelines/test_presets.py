"""Presets of params.yaml: each builds, has the parameters its sizes say, and takes training steps."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import port
from parity_tests import goldens
from pipelines.support import settings
from pipelines.support.values import BadInput, load_params, params_at
from port.data import dataset, sources
from port.training import loop as train

PARAMS = goldens.REPOSITORY / "params.yaml"
# Constellation presets: test_constellation_stages.py; capsule classifiers: test_classify.py; other modes of
# the image model: test_mode_stages.py; mlab, whose rates are another port's: test_mlab.py.
PRESETS = [name for name, given in load_params(PARAMS)["presets"].items()
           if given["model"].get("model") is None]
# Pixels and channels of each source, as its publishers state them.
SHAPES = {"mnist": (1, 28), "usps": (1, 16), "svhn": (3, 32), "svhn_head": (3, 32), "cifar10": (3, 32),
          "affnist": (1, 40)}
KNOWN = {"mnist": 3_540_823, "mnist_coupled": 2_417_447}  # of the original's own checkpoints


def derived(path: Path) -> dict[str, tuple[dict, dict, dict]]:
    """`preset.section` → what a section takes over by `<<`, what it says itself, and what YAML makes of both."""
    document = yaml.compose(path.read_text(encoding="utf-8"))
    values = yaml.SafeLoader("")

    def plain(node: yaml.Node, kept=lambda key: True) -> dict:
        pairs = [pair for pair in node.value if kept(pair[0].value)]
        return values.construct_mapping(yaml.MappingNode(node.tag, pairs), deep=True)
    presets = next(value for key, value in document.value if key.value == "presets")
    found = {}
    for name, sections in presets.value:
        for section, node in sections.value:
            base = [value for key, value in node.value if key.value == "<<"]
            if base:
                own = plain(node, lambda key: key != "<<")
                found[f"{name.value}.{section.value}"] = plain(base[0]), own, load_params(path)["presets"][
                    name.value][section.value]
    return found


def test_a_derived_preset_says_only_what_it_changes() -> None:
    """Nothing that its base says too; and base and changes together are what DVC and the stages read."""
    found = derived(PARAMS)
    assert {"mnist_paper.model", "usps.train", "cifar10.model"} <= set(found)
    again = {name: key for name, (base, own, _) in found.items() for key in own
             if key in base and base[key] == own[key]}
    assert not again, f"said by the base already: {again}"
    assert {name: base | own for name, (base, own, _) in found.items()} == {
        name: whole for name, (_, _, whole) in found.items()}


def test_an_experiment_changes_one_value(tmp_path: Path) -> None:
    """`dvc exp run -S` writes the file anew; whatever stands in it by `<<` keeps its value."""
    hydra = pytest.importorskip("dvc.utils.hydra")
    path = tmp_path / "params.yaml"
    for override, section, others in (("presets.usps.train.lr=0.125", "usps", "digits"),
                                      ("presets.digits.train.lr=0.125", "digits", "usps")):
        path.write_bytes(PARAMS.read_bytes())
        hydra.apply_overrides(path, [override])
        expected = load_params(PARAMS)
        assert expected["presets"][others]["train"]["lr"] == expected["presets"][section]["train"]["lr"] != 0.125
        expected["presets"][section]["train"]["lr"] = 0.125
        assert load_params(path) == expected


@functools.cache
def preset(name: str) -> settings.Preset:
    return settings.load_preset(name, path=PARAMS)


def counted(flat: dict) -> int:
    """Number of parameters from the flat settings alone, by the layers' shapes in the facts sheet."""
    f = {"output_channels": [128] * 4, "strides": [2, 2, 1, 1], "n_layers": 3, "n_heads": 1, "n_dims": 16,
         "n_output_dims": 256, "n_hiddens": 128} | flat
    parts, objects, features = (f[name] for name in ("n_part_caps", "n_obj_caps",
                                                     "n_part_special_features"))
    pixels, channels = f["template_size"] ** 2, f["n_channels"]
    width, out, hidden, caps = (f[name] for name in ("n_dims", "n_output_dims", "n_hiddens",
                                                     "n_obj_caps_params"))

    def attention(dims: int) -> int:  # queries, keys, values of each head, then the output
        head = math.ceil(dims / f["n_heads"])
        return 3 * f["n_heads"] * (dims + 1) * head + (f["n_heads"] * head + 1) * dims

    total, before, side = 0, channels, f["canvas_size"]
    for after, stride in zip(f["output_channels"], f["strides"]):
        total += (9 * before + 1) * after
        before, side = after, (side - 3) // stride + 1
    total += side * side * before + (before + 1) * (parts * (6 + features + 1) + parts)
    total += parts * pixels * channels + 1  # templates and the background's value
    total += parts * pixels + 1 if f["use_alpha_channel"] else 1  # alpha and its background, temperature
    if f["colorize_templates"]:
        total += (features + 1) * 32 + 33 * channels
    total += (7 + features + pixels * channels + 1) * width
    total += f["n_layers"] * (attention(width) + 4 * width + (width + 1) * 2 * width
                              + (2 * width + 1) * width)
    total += (width + 1) * out + objects * out + attention(out)
    numbers = 6 * parts + 6 + 1 + 2 * parts
    total += objects * ((out + 1) * hidden + (hidden + 1) * caps + (caps + 2) * hidden + hidden * numbers)
    total += objects * (6 + 1 + 2 * parts) + objects * parts * 6 + parts * 6  # biases, static, dummy vote
    return total + 2 * (objects + 1) * 10


@pytest.mark.parametrize("name", PRESETS)
def test_number_of_parameters(name) -> None:
    chosen = preset(name)
    found = sum(p.numel() for p in port.ImageAutoencoder(chosen.config()).parameters())
    assert found == counted(chosen.model) == KNOWN.get(name, found)


def generated(chosen: settings.Preset, n: int = 4) -> dataset.Dataset:
    """Random images of the source's size."""
    wanted = chosen.prepare()
    channels, side = SHAPES.get(wanted.source) or (1, (wanted.options or {})["enlarge"])
    images = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    split = dataset.Split(images, torch.arange(n) % 10)
    return dataset.Dataset("generated", split, split)


@pytest.mark.parametrize("name", PRESETS)
def test_two_training_steps(name) -> None:
    """The preset's own settings on a tiny batch: finite losses, and templates and probes move."""
    chosen = preset(name)
    given = chosen.sections["train"] | {"batch_size": 2, "steps": 2, "log_every": 1, "held_out_every": 0,
                                        "validation_images": 0, "compile": False, "device": "cpu", "threads": 1}
    wanted, _ = settings.Preset(name, chosen.sections | {"train": given}, chosen.model).train(seed=0)
    model = port.ImageAutoencoder(chosen.config(), seed=0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run = train.train(model, generated(chosen), wanted)
    assert run.step == 2 and all(math.isfinite(value) for row in run.history for value in row.values())
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert {"part_decoder.templates", "probes.0.linear.weight"} <= set(moved), moved


@pytest.mark.parametrize("name", PRESETS)
def test_the_source_exists_and_fits(name) -> None:
    chosen = preset(name)
    assert chosen.prepare().source in sources.SOURCES
    config = chosen.config()
    channels, height, width = generated(chosen).train.images.shape[1:]
    assert channels == config.channels and max(height, width) <= config.canvas
    chosen.evaluate()


WEIGHTS = tuple(f"{kind}_{place}_example_sparsity_weight" for kind in ("prior", "posterior")
                for place in ("within", "between"))
SETTINGS = ("caps_ll_weight", *WEIGHTS, "target", "template_nonlin", "color_nonlin", "n_heads", "n_dims",
            "strides")


@pytest.mark.parametrize("key", SETTINGS)
def test_every_setting_of_svhn_reaches_the_loss(key) -> None:
    """A setting that the configuration took and the model ignored would go unnoticed for 300,000 steps."""
    flat = preset("svhn").model | {"output_channels": [8, 8, 8, 8], "n_part_caps": 3, "n_obj_caps": 4,
                                   "n_output_dims": 16, "n_hiddens": 8, "n_dims": 8}
    other = {"target": "image", "template_nonlin": "sigmoid", "color_nonlin": "sigmoid", "n_heads": 1,
             "n_dims": 6, "strides": [2, 2, 1, 1]}.get(key)
    changed = flat | {key: flat[key] * 1.5 if other is None else other}
    image = generated(preset("svhn")).train.images / 255
    losses = [float(port.ImageAutoencoder(port.config.from_flat(one), seed=0)(
        image, torch.arange(4)).loss.detach()) for one in (flat, changed)]
    assert losses[0] != losses[1]


def test_svhn_and_cifar10_follow_the_table() -> None:
    """The numbers of the fork's two scripts, given here once more by hand."""
    common = {"canvas_size": 32, "n_channels": 3, "template_size": 14, "strides": [1, 1, 2, 2],
              "output_channels": [128] * 4, "n_layers": 3, "n_heads": 2, "n_dims": 64,
              "n_output_dims": 128, "template_nonlin": "relu1", "color_nonlin": "relu1",
              "colorize_templates": True, "use_alpha_channel": True, "target": "sobel"}
    for name, parts, objects, values, likelihood in (
            ("svhn", 24, 32, (0.22, 0.1, 8.62, 0.26), 2.56),
            ("cifar10", 32, 64, (0.17, 0.1, 1.39, 7.32), 2.075)):
        expected = common | {"n_part_caps": parts, "n_obj_caps": objects, "caps_ll_weight": likelihood}
        expected |= dict(zip(WEIGHTS, values))
        assert {key: preset(name).model[key] for key in expected} == expected
        wanted, _ = preset(name).train(seed=0)
        assert (wanted.batch_size, wanted.lr, wanted.steps) == (128, 1e-4, 300_000)


@pytest.mark.shared
def test_mnist_coupled_is_what_the_recording_was_made_with() -> None:
    """The recording's flags, with every flag it leaves out at the original's default."""
    flags = ["--canvas_size=40", "--n_part_caps=24", "--n_obj_caps=24", "--colorize_templates=True",
             "--use_alpha_channel=False", "--batch_size=8"]
    for root in goldens.roots():
        recorded = root / "mnist_coupled" / "manifest.json"
        if recorded.exists():
            assert json.loads(recorded.read_text())["flags"] == flags
    assert preset("mnist_coupled").config() == port.config.from_manifest({"flags": flags})
    wanted, _ = preset("mnist_coupled").train(seed=0)
    assert (wanted.batch_size, wanted.lr) == (32, 1e-4)  # the flags' defaults; the recording had 8


def test_the_smoke_preset_of_svhn_is_the_same_model() -> None:
    assert preset("svhn_head").model == preset("svhn").model
    differing = {key for key in preset("cifar10").model
                 if preset("cifar10").model[key] != preset("cifar10_sigmoid").model[key]}
    assert differing == {"template_nonlin", "color_nonlin"}


def test_presets_survive_json() -> None:
    """A run stores its resolved configuration: plain values that read back equal."""
    for name in PRESETS:
        resolved = preset(name).resolved()
        assert json.loads(json.dumps(resolved)) == resolved
        assert np.all([isinstance(key, str) for key in resolved["model"]])


def test_params_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without params.yaml the checkout's is read, as an editable install finds it; one that is there wins,
    one that is named is not replaced, and a file that lies beside an installed package is nobody's."""
    monkeypatch.chdir(tmp_path)
    assert params_at() == PARAMS and "mnist" in load_params()["presets"]
    with pytest.raises(BadInput, match="cannot read other.yaml"):
        load_params("other.yaml")
    (tmp_path / "params.yaml").write_text("presets: {mine: {model: {}}}\n")
    assert list(load_params()["presets"]) == ["mine"]

    site = tmp_path / "site"
    (site / "pipelines").mkdir(parents=True)
    (site / "params.yaml").write_text("presets: {}\n")
    monkeypatch.setattr("pipelines.support.values.PACKAGE", site / "pipelines")
    (tmp_path / "params.yaml").unlink()
    assert params_at() == Path("params.yaml")
    (site / "pipelines/params.yaml").write_text("presets: {}\n")
    assert params_at() == site / "pipelines/params.yaml"
