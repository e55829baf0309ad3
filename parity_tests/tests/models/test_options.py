"""Every option of the original alone: it reaches the model, and docs/options.md says what shows it.

That port and reference agree under each is test_model.py's (the covering rows hold every value of every
option) and the recordings'; what could still be wrong is an option that both ignore. So here each one must
change a tap, a scalar or a gradient of the port, on the same images and draws. The deep tier compares the
two sides under each option alone, too.
"""

from __future__ import annotations

import functools
import importlib
import re
from dataclasses import fields

import numpy as np
import pytest

import port
from parity_tests import goldens
from parity_tests.drawn.models import ModelCase, covering_case
from parity_tests.drawn.verify import verify_model
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import covering, models, tiers
from port.configuration.fields import CHOICES
from port.scae.config import SECTIONS

CHANGES = "test_options.py::test_option_changes_the_model"
DOCUMENT = REPOSITORY / "docs" / "options.md"
BASE = {name: values[0] for name, values in covering.FACTORS.items()}
# Sizes of the data and repairs are no options of the original's modules.
OPTIONS = {f"{name}={value}": {name: value} for name, values in covering.FACTORS.items()
           for value in values[1:] if name not in ("repairs", "batch", "channels")}
OPTIONS["object_encoder=mlp"] = {"object_encoder": "mlp"}
# What no covering row varies: (section, key) and another value than the rows'.
SETTINGS = {"n_caps_params=None": ("obj_decoder", "n_caps_params", None),
            "noise_scale=2 of objects": ("obj_decoder", "noise_scale", 2.0),
            "n_classes=3": ("autoencoder", "n_classes", 3),
            **{f"{name}=5": ("autoencoder", name, 5.0) for name in (
                "dynamic_l2_weight", "caps_ll_weight", "prior_within_example_sparsity_weight",
                "prior_between_example_sparsity_weight", "posterior_within_example_sparsity_weight",
                "posterior_between_example_sparsity_weight")}}
# Settings of other ports, which not every version has.
SETTINGS |= {f"{key}={value}": (section, key, value) for section, key, value in (
    ("cnn", "residual_blocks", 1), ("part_decoder", "inverse_space_transform", False),
    ("autoencoder", "rec_ll_weight", 5.0), ("autoencoder", "template_l1_weight", 5.0),
    ("autoencoder", "mse_weight", 5.0)) if hasattr(SECTIONS[section], key)}
# Keys whose effect is a size; all sizes are drawn in test_model.py.
SIZES = {"output_channels", "kernel_shapes", "strides", "paddings", "n_caps", "n_caps_dims", "n_features",
         "template_size", "n_channels", "n_layers", "n_dims", "n_output_dims", "n_outputs", "n_votes",
         "n_classes"}


def case_of(name: str) -> ModelCase:
    """The base with one option changed, on the base's images and, where they fit, its draws."""
    case, base = covering_case(BASE | OPTIONS.get(name, {}), 40), covering_case(BASE, 40)
    if name in SETTINGS:
        section, key, value = SETTINGS[name]
        case.arguments[section][key] = value
        if key == "n_classes":
            case.labels = case.labels % value
    if case.noise and [raw.shape for raw in case.noise[0]] == [raw.shape for raw in base.noise[0]]:
        case.noise = base.noise
    return case


def seen(case: ModelCase) -> dict[str, np.ndarray | None]:
    """Taps, scalars and gradients of the port."""
    model = models.build("port", case.arguments, "float64", case.seed)
    found = models.forward("port", model, case.images[0],
                           None if case.labels is None else case.labels[0],
                           None if case.noise is None else case.noise[0], "float64")
    return found.taps | {f"grad {name}": value for name, value in found.gradients.items()}


@functools.cache
def seen_of_base() -> dict[str, np.ndarray | None]:
    return seen(covering_case(BASE, 40))


def differs(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return (one is None) != (other is None)
    return not np.array_equal(one, other)


@pytest.mark.parametrize("name", [*OPTIONS, *SETTINGS])
def test_option_changes_the_model(name: str, tier: str) -> None:
    """A tap, a scalar or a gradient is another one, beyond the names that are there."""
    case, base = case_of(name), seen_of_base()
    assert case.images.shape == covering_case(BASE, 40).images.shape
    found = seen(case)
    both = base.keys() & found.keys()
    changed = [key for key in both if differs(base[key], found[key]) and key != "input/label"]
    assert changed, name
    assert "loss/total" in changed or any(key.startswith("grad ") for key in changed), name
    if tier == "deep":
        test = f"parity_tests/tests/models/test_options.py::test_option_changes_the_model[{name}]"
        verify_model(case, f'python -m pytest --tier=deep "{test}"')


def test_every_setting_is_varied() -> None:
    """No key of a section is left out: an option, a weight or a size."""
    varied = {key for name, change in OPTIONS.items() for key in change} | {
        key for _, key, _ in SETTINGS.values()} | SIZES
    other_names = {"caps_dropout_rate": "caps_dropout", "dropout_rate": "attention_dropout",
                   "colorize_templates": "colour", "use_alpha_channel": "alpha",
                   "similarity_transform": "part_similarity", "prior_sparsity_loss_type": "prior",
                   "posterior_sparsity_loss_type": "posterior", "prior_within_example_constant": "constant"}
    keys = {item.name for section in SECTIONS.values() for item in fields(section)}
    left_out = {key for key in keys if other_names.get(key, key) not in varied}
    assert not left_out, f"options that nothing varies: {sorted(left_out)}"


@pytest.mark.parametrize(("settings", "message"), [
    ({"n_caps_dims": 3}, "6 numbers and an object capsule 2 dimensions"),
    ({"n_part_caps_dims": 5}, "6 numbers and an object capsule 2 dimensions"),
    ({"pdf": "laplace", "model": "constellation"}, "did you mean"),
    ({"template_nonlin": "tanh"}, "relu1, sigmoid"), ({"color_nonlin": "tanh"}, "relu1, sigmoid"),
    ({"vote_type": "mean"}, "enc, hard, soft"), ({"pres_type": "mean"}, "enc, hard, soft"),
    ({"encoder_type": "conv_attn"}, "did you mean 'conv_att'"),
    ({"prior_sparsity_loss_type": "l1"}, "entropy, kl, l2"),
    ({"posterior_sparsity_loss_type": "l1"}, "entropy, kl, l2"), ({"noise_type": "gumbel"}, "did you mean"),
    ({"object_encoder": "mlp", "dropout_rate": 0.1}, "no attention"),
    ({"object_encoder": "mlp", "n_inducing_points": 2}, "no attention")])
def test_what_is_refused(settings: dict, message: str) -> None:
    """A value that the original cannot run either is refused when the configuration is read."""
    with pytest.raises(port.ConfigError, match=message):
        port.config.from_flat(settings)


def table() -> list[dict[str, str]]:
    """The rows of all tables in the document, by column."""
    found, columns = [], []
    for line in DOCUMENT.read_text().splitlines():
        if not line.startswith("|"):
            columns = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not columns:
            columns = cells
        elif set(line) - set("|- "):
            assert len(cells) == len(columns), line
            found.append(dict(zip(columns, cells)))
    return found


def collectable(node: str) -> bool:
    """Whether `file.py::test[parameter]` is a test: function and parameter exist."""
    file, _, rest = node.partition("::")
    name, _, parameter = rest.partition("[")
    module = importlib.import_module(".".join(
        tiers.test_file(file).relative_to(REPOSITORY).with_suffix("").parts))
    marks = [mark for mark in getattr(getattr(module, name, None), "pytestmark", ())
             if mark.name == "parametrize"]
    if not hasattr(module, name) or bool(parameter) != bool(marks):
        return False
    if not marks:
        return True
    argument, values = marks[0].args
    arguments = [argument] if isinstance(argument, str) else argument

    def shown(name: str, value: object, i: int) -> str:
        return str(value) if isinstance(value, str | int | float) else f"{name}{i}"

    ids = marks[0].kwargs.get("ids") or [
        "-".join(shown(name, one, i) for name, one in zip(
            arguments, [value] if isinstance(argument, str) else value)) for i, value in enumerate(values)]
    return parameter.removesuffix("]") in ([ids(v) for v in values] if callable(ids) else list(ids))


def first_column(row: dict[str, str]) -> str:
    return re.sub(r"[`\s]+", " ", next(iter(row.values()))).strip()


@pytest.mark.shared
@pytest.mark.parametrize("row", table(), ids=first_column)
def test_the_table_names_tests_that_exist(row: dict[str, str]) -> None:
    """Each row has a test; each recording it names is known, and compared where it is there."""
    nodes = re.findall(r"`(test_\w+\.py::[^`]+)`", row["test"])
    assert nodes, row
    recorded = re.findall(r"`([\w/]+)`", row.get("recorded", ""))
    known, here = {*goldens.EXPECTED, *goldens.EXPECTED_OPS}, goldens.discover()
    assert set(recorded) <= known, row
    for node in nodes:
        missing = [name for name in known - here.keys() if f"[{name}" in node]
        assert missing or collectable(node), node
    for name in recorded:
        if name in here and here[name].folder.joinpath("checkpoint").is_dir():
            assert collectable(f"test_goldens_models.py::test_model[{name}-noise-float64-port]") or \
                collectable(f"test_goldens_models.py::test_model[{name}-nonoise-float64-port]"), name


@pytest.mark.parametrize("row", table(), ids=first_column)
def test_the_table_names_a_test_of_values(row: dict[str, str]) -> None:
    """Not only that an option changes something: a recording of it where there is one, else parity."""
    nodes = re.findall(r"`(test_\w+\.py::[^`]+)`", row["test"])
    assert any(not node.startswith(CHANGES) for node in nodes), row
    for name in re.findall(r"`(options/\w+)`", row.get("recorded", "")):
        assert any(node.startswith("test_goldens_") and f"[{name}" in node for node in nodes), row
    option = next((OPTIONS.get(node.removeprefix(CHANGES)[1:-1]) for node in nodes
                   if node.startswith(CHANGES)), None)
    for index in re.findall(r"test_covering\[(\d+)\]", row["test"]):
        held = [*covering.rows(), covering.MLP][int(index)]
        assert option is None or option.items() <= held.items(), row


def test_the_check_of_the_table_can_fail() -> None:
    """A test that is not there, a parameter that is not, one too many, one too few."""
    assert collectable("test_options.py::test_option_changes_the_model[encoder_type=linear]")
    assert collectable("test_options.py::test_every_setting_is_varied")
    for node in ("test_options.py::test_nothing", "test_options.py::test_option_changes_the_model",
                 "test_options.py::test_option_changes_the_model[encoder_type=dense]",
                 "test_options.py::test_every_setting_is_varied[0]"):
        assert not collectable(node), node


def test_the_table_holds_every_value() -> None:
    """Each value of each choice stands in the first column."""
    named = " ".join(row["option"] for row in table() if "option" in row)
    missing = [f"{key}: {value}" for key, values in CHOICES.items() for value in values
               if key != "paddings" and f"`{key}: {value}`" not in named]
    assert not missing
