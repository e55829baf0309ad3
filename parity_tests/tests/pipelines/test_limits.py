"""Every number among the settings has a range beside its field; wrong names are offered the right one."""

from __future__ import annotations

import copy
import dataclasses
import typing

import numpy as np
import pytest

import port
from parity_tests import goldens
from pipelines import cli
from pipelines.support import sections, settings
from pipelines.visit import queue
from port.configuration import fields, limits, names
from port.configuration.fields import ConfigError
from port.constellation import batches as constellation_batches
from port.constellation import config as config_constellation
from port.data import sources
from port.scae import config as config_schema
from port.scae import config_modes
from port.training import schedule

SECTIONS = [sections.Evaluate, sections.CapsnetDimensions, sections.CapsnetReconstruction, sections.Parity,
            sections.Equivariance, sections.Report, sections.Prepare, schedule.Settings,
            sources.SplitOptions, constellation_batches.PointSettings]
MODEL = [*config_schema.SECTIONS.values(), config_schema.Config, config_modes.PartLosses,
         config_modes.PartConfig, config_modes.UpperEncoder, config_modes.UpperDecoder,
         config_modes.UpperLosses, config_modes.HierarchyConfig, config_constellation.PointEncoder,
         config_constellation.VoteDecoder, config_constellation.ConstellationLosses,
         config_constellation.ConstellationConfig]


def numbers(kind: type) -> list[str]:
    """Names of the fields that hold numbers, alone or in tuples."""
    def counts(hint) -> bool:
        return hint in (int, float) or any(counts(one) for one in typing.get_args(hint))
    hints = typing.get_type_hints(kind)
    return [field.name for field in dataclasses.fields(kind) if counts(hints[field.name])]


@pytest.mark.parametrize("kind", [*SECTIONS, *MODEL], ids=lambda kind: kind.__name__)
def test_every_number_has_a_range(kind: type) -> None:
    """A subclass that changes a default keeps the range; nobody takes NaN, and each default fits."""
    ranges = limits.of(kind)
    assert set(numbers(kind)) <= set(ranges)
    default = kind()
    limits.check(default)
    for name in ranges:
        for wrong in (float("nan"), float("inf"), -10**9, True, "x"):
            given = copy.copy(default)
            object.__setattr__(given, name, wrong)  # past the type checks of a test run
            with pytest.raises(ValueError, match=name):
                limits.check(given)


def test_a_name_has_one_range() -> None:
    """A flat setting reaches several sections, and is checked by its bare name."""
    for kind in MODEL:
        for name, found in limits.of(kind).items():
            assert config_schema.LIMITS.get(name, found) == found, (kind, name)


def test_the_edges() -> None:
    """The bounds themselves are taken where they are meant to be, and only there."""
    for range_, good, bad in (
            (limits.Limits(at_least=0), (0, 1e300), (-1e-300,)), (limits.Limits(above=0), (5e-324,), (0,)),
            (limits.Limits(at_most=3), (3, -1e9), (4,)),
            (limits.Limits(below=1), (float(np.nextafter(1, 0)),), (1,))):
        assert all(range_.refusal(one) == "" for one in good) and all(map(range_.refusal, bad))
    assert "must be at most 4,294,967,295" in limits.Limits(at_most=limits.SEEDS).refusal(2**32)


# What was taken and means nothing → the words of the refusal.
REFUSED = {
    "evaluate.level=-1": "level must be above 0, not -1.0", "evaluate.level=1": "must be below 1",
    "evaluate.standard_errors=nan": "standard_errors must be a finite number",
    "evaluate.standard_errors=-3": "standard_errors must be at least 0",
    "evaluate.batch_size=0": "batch_size must be at least 1", "evaluate.seed=-1": "seed must be at least 0",
    "evaluate.seed=4294967296": "seed must be at most 4,294,967,295",
    "evaluate.bootstrap_draws=0": "bootstrap_draws", "evaluate.fit_images=-5": "fit_images",
    "evaluate.tsne_images=-1": "tsne_images", "evaluate.n_pictures=0": "n_pictures",
    "evaluate.threads=-1": "threads", "evaluate.baseline_images=0": "baseline_images",
    "train.held_out_images=-5": "held_out_images must be at least 1",
    "train.lr=nan": "lr must be a finite number", "train.lr=inf": "lr must be a finite number",
    "train.momentum=1": "momentum must be below 1", "train.threads=-1": "threads must be at least 0",
    "train.lr_factors={part_decoder.: .inf}": "factor of 0 or more",
    "train.batch_size=1000000000": "batch_size must be at most 1,000,000",
    "model.dynamic_l2_weight=-1": "dynamic_l2_weight must be at least 0, not -1",
    "model.posterior_between_example_sparsity_weight=-0.1": "must be at least 0",
    "model.weight_decay=-1": "weight_decay must be at least 0", "model.mse_weight=nan": "finite",
    "model.prior_within_example_constant=-1": "at least 0", "model.canvas_size=1000000000": "at most 4,096",
    "model.strides=[2, 2]": "strides: one for all or one for each of",
    "model.template_size=[5]": "rows and columns",
    "model.residual_blocks=-1": "residual_blocks must be at least 0",
}


@pytest.mark.parametrize("given", REFUSED)
def test_settings_that_mean_nothing(given: str) -> None:
    chosen = settings.load_preset("digits", [given], goldens.REPOSITORY / "params.yaml")
    with pytest.raises(ValueError) as caught:
        chosen.evaluate(), chosen.train(0), chosen.config()
    assert REFUSED[given] in str(caught.value)


@pytest.mark.parametrize("option", [{"enlarge": 10**9}, {"enlarge": 0}, {"test_share": 1.0},
                                    {"test_share": float("nan")}, {"split_seed": -1}])
def test_options_of_a_source(option: dict, tmp_path) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        sources.load("digits", tmp_path, **option)


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_the_seed_of_a_run(seed: str, capsys, tmp_path) -> None:
    code = cli.main(["train", "--seed", seed, "--results", str(tmp_path), "--params",
                     str(goldens.REPOSITORY / "params.yaml")])
    assert code == 2 and "seed must be" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_configuration_made_by_hand() -> None:
    """The sections look at themselves, however they are made."""
    with pytest.raises(ConfigError, match="mse_weight"):
        port.config.Autoencoder(mse_weight=-1.0)
    with pytest.raises(ConfigError, match="n_outputs"):
        config_modes.UpperEncoder(n_outputs=0)


@pytest.mark.parametrize(("kind", "given", "meant"), [
    (int, "3", 3), (int, 3.0, 3), (float, 1, 1.0), (float, "1e-4", 1e-4), (bool, "True", True), (bool, False, False),
    (int | None, "none", None), (str | None, None, None), (str | None, "none", "none"), (list | None, [1], [1]),
    (tuple[int, ...], "[1, 2]", (1, 2)), (tuple[float, ...], [1, "2"], (1.0, 2.0)), (dict, {"a": 1}, {"a": 1})])
def test_a_value_in_the_type_of_its_field(kind, given, meant) -> None:
    """Text is read as on a command line, by stages as by models."""
    found = fields.converted("here", kind, given)
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(("kind", "given"), [
    (int, 3.5), (int, "three"), (int, True), (int, float("inf")), (int, float("nan")), (int, 10**400), (float, 10**400),
    (float, "high"), (float, None), (bool, 1), (bool, "yes"), (str, 3), (str, None), (list | None, "ab"),
    (dict | None, [1]), (tuple[int, ...], "[1"), (tuple[int, ...], 3), (tuple[int, ...], [1.5])])
def test_a_value_of_another_type(kind, given) -> None:
    with pytest.raises(ConfigError, match="^here must be of type .*, not "):
        fields.converted("here", kind, given)


@pytest.mark.parametrize(("given", "says"), [
    ({"sise": 3}, "^at home: unknown key 'sise'; did you mean 'size'"), ([1], "^at home: expected keys and values"),
    ({"size": "x"}, "^at home: size must be of type int | None, not 'x'$"),
    ({"size": 0}, "^at home: size must be at least 1, not 0$")])
def test_what_a_mapping_is_refused_for(given, says: str) -> None:
    """What, where, and what to do."""
    with pytest.raises(ConfigError, match=says.replace("|", r"\|")):
        fields.from_mapping(sections.Prepare, given, "at home")
    with pytest.raises(ConfigError, match="^at home: give preset$"):
        fields.from_mapping(queue.Entry, {"seed": 1}, "at home")


# ------------------------------------------------------------------------------------------- names

@pytest.mark.parametrize(("given", "right"), [
    ("train.learning_rate", "lr"), ("train.num_workers", "data_workers"), ("train.lrr", "lr"),
    ("train.n_steps", "steps"), ("train.max_grad_norm", "grad_norm_clip"), ("train.wd", "weight_decay"),
    ("evaluate.confidence", "level"), ("prepare.dataset", "source"), ("prepare.data_dir", "data_root"),
    ("train.Learning-Rate", "lr"), ("train.batchsize", "batch_size"), ("evaluate.gpu", "device"),
    ("model.num_classes", "n_classes"),
    ("model.image_size", "canvas_size"), ("model.dropout", "dropout_rate")])
def test_the_name_that_was_meant(given: str, right: str) -> None:
    """By meaning first, then by spelling."""
    chosen = settings.load_preset("digits", [f"{given}=1"], goldens.REPOSITORY / "params.yaml")
    with pytest.raises(ValueError, match=f"did you mean '{right}'"):
        chosen.prepare(), chosen.evaluate(), chosen.train(0), chosen.config()


def test_every_meaning_leads_to_a_setting() -> None:
    """No entry of the table points nowhere."""
    there = {field.name for kind in (*SECTIONS, *MODEL) for field in dataclasses.fields(kind)}
    there |= {*config_schema.LIMITS, "epochs", "canvas_size", "n_part_caps", "n_obj_caps", "classes",
              "primary_types", "image_channels", "iterations"}
    assert {ours for each in names.MEANT.values() for ours in each} <= there
    assert names.meant("xyz", [], 0.5) is None and names.meant("learning_rate", ["steps", "rate"]) == "rate"
    assert fields.unknown("key", "learning_rate", ["lr", "learning"]) == \
        "unknown key 'learning_rate'; did you mean 'lr'? Allowed: learning, lr"
