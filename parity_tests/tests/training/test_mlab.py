"""The ML@B port's command line on `scae train`: every option changes the run, and numbered runs resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness.mlab import SMALL, base, weights
from pipelines import cli
from pipelines import train as stage
from pipelines.commands import mlab
from pipelines.commands import train as train_command
from pipelines.support import settings, tracking
from port.data import dataset
from port.training import schedule


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_preset_has_their_defaults() -> None:
    """Option by option, in the settings that they become."""
    preset = settings.load_preset("mlab", path=REPOSITORY / "params.yaml")
    train, model = preset.sections["train"], preset.model
    assert (train["batch_size"], train["epochs"], train["deterministic"]) == (128, 3000, True)
    assert (train["lr"], train["lr_decay"], train["lr_restart_interval"]) == (0.003, 0.998, 4000)
    assert (train["optimizer"], train["lr_schedule"], train["weight_decay"]) == (
        "radam", "cosine_restarts", 0.0)
    sizes = ("n_part_caps", "n_part_caps_dims", "n_part_special_features")
    assert [model[name] for name in sizes] == [16, 6, 16]
    assert (model["rec_ll_weight"], model["template_l1_weight"], model["mse_weight"]) == (1.0, 0.0, 0.0)
    assert (model["use_alpha_channel"], model["inverse_space_transform"], model["model"]) == (
        False, True, "scae")
    assert preset.sections["prepare"]["source"] == "mnist" and preset.wandb() == "none"
    assert (train["wandb_project"], train["log_every"], train.get("debug", False)) == ("SCAE", 1, False)
    assert train["lr"] * train["lr_factors"]["object_decoder."] == pytest.approx(0.1, rel=1e-12)
    assert train["lr_factors"]["part_decoder."] == 1.0
    given = mlab.apply(preset, {"pcae_lr": 0.003, "ocae_lr": 0.1, "pcae_decoder_lr_coeff": 1.0,
                                "pcae_optimizer": "radam", "pcae_lr_scheduler": "cosrestarts",
                                "model": "scae", "dataset": "mnist", "pcae_weight_decay": 0.0,
                                "log_upload": False, "batch_size": 128})
    assert (given.sections, given.model) == (preset.sections, preset.model)


# What the options are in the ML@B port; None: there is no default to state.
THEIRS = {
    "batch_size": 128, "num_epochs": 3000, "model": "scae", "dataset": "mnist", "data_workers": 0,
    "pcae_num_caps": 16, "pcae_caps_dim": 6, "pcae_feat_dim": 16, "pcae_lr": 0.003, "pcae_lr_decay": 0.998,
    "pcae_lr_restart_interval": 4000, "pcae_weight_decay": 0, "pcae_decoder_lr_coeff": 1,
    "pcae_optimizer": "radam", "pcae_lr_scheduler": "cosrestarts", "pcae_loss_ll_coeff": 1,
    "pcae_loss_temp_l1_coeff": 0, "pcae_loss_mse_coeff": 0, "alpha_channel": "without", "ocae_lr": 0.1,
    "log_project": "SCAE", "log_team": "none", "log_upload": "off", "log_frequency": 1,
    "non_deterministic": None, "debug": None, "no_inverse": None, "log_run_name": None}


def test_the_help_states_their_defaults() -> None:
    """Each option has its line, with the default that the preset has (the test above)."""
    hints = typing.get_type_hints(train_command.train, include_extras=True)
    assert THEIRS.keys() <= hints.keys()
    for name, value in THEIRS.items():
        told = hints[name].__metadata__[0].help
        assert told.endswith(f"mlab: {value}.") if value is not None else "mlab" not in told, name


def test_the_data_are_those_named(ran) -> None:
    """--dataset digits, where mlab has mnist: the run's configuration and its images."""
    folder = ran()
    assert read(folder / "config.json")["prepare"]["source"] == "digits"
    assert port.load(folder).preprocessing.load(download=False).train.images.shape == (1347, 1, 16, 16)


CHANGES = {
    "-n": ("-n", "500"), "--pcae-feat-dim": ("--pcae-feat-dim", "3"), "--pcae-lr": ("--pcae-lr", "2e-6"),
    "--pcae-lr-restart-interval": ("--pcae-lr-restart-interval", "2"),
    "--pcae-weight-decay": ("--pcae-weight-decay", "0.5"),
    "--pcae-decoder-lr-coeff": ("--pcae-decoder-lr-coeff", "0.5"),
    **{f"--pcae-optimizer {name}": ("--pcae-optimizer", name) for name in mlab.OPTIMIZERS
       if name != "radam"},
    "--pcae-lr-scheduler none": ("--pcae-lr-scheduler", "none", "--set", "train.lr_restart_interval=2"),
    "--pcae-loss-ll-coeff": ("--pcae-loss-ll-coeff", "0.5"),
    "--pcae-loss-temp-l1-coeff": ("--pcae-loss-temp-l1-coeff", "3000"),
    "--pcae-loss-mse-coeff": ("--pcae-loss-mse-coeff", "500"), "--alpha-channel": ("--alpha-channel",),
    "--pcae-no-inverse-space-transform": ("--pcae-no-inverse-space-transform",),
    "--ocae-lr": ("--ocae-lr", "1e-6"), "--pcae-num-caps": ("--pcae-num-caps", "4")}


@pytest.mark.parametrize("name", CHANGES)
def test_an_option_changes_the_run(name: str, ran) -> None:
    """The trained weights are others."""
    before, after = weights(ran()), weights(ran(*CHANGES[name]))
    assert before.keys() != after.keys() or not all(
        torch.equal(value, after[key]) for key, value in before.items())


def test_rates_move_what_they_name(ran) -> None:
    """In one step of SGD the decoder's factor moves the decoder alone, the objects' rate the objects."""
    one = ("--pcae-optimizer", "sgd", "--pcae-lr-scheduler", "none", "--set", "train.steps=1")
    base = weights(ran(*one))
    for option, prefixes in ((("--pcae-decoder-lr-coeff", "0.5"), ("part_decoder.",)),
                             (("--ocae-lr", "1e-6"), ("object_encoder.", "object_decoder.", "probes."))):
        other = weights(ran(*one, *option))
        moved = {key for key in base if not torch.equal(base[key], other[key])}
        assert moved and all(key.startswith(prefixes) for key in moved)
    decayed = weights(ran(*one, "--pcae-weight-decay", "0.1"))
    assert not torch.equal(decayed["part_encoder.conv.weight"], base["part_encoder.conv.weight"])


def test_decay_of_the_rate_by_epochs(ran) -> None:
    """exp: the factor counts after each epoch of 1,347 images in batches of 600, that is of 3 steps."""
    exp = ("--pcae-optimizer", "adam", "--pcae-lr-scheduler", "exp", "--set", "train.steps=4")
    config = read(ran(*exp) / "config.json")["train"]
    assert (config["lr_decay_steps"], config["lr_staircase"], config["lr_decay"]) == (3, True, 0.998)
    before, after = weights(ran(*exp)), weights(ran(*exp, "--pcae-lr-decay", "0.1"))
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_epochs_become_steps(ran) -> None:
    """Passes over the training images, in steps of a batch."""
    assert read(ran("-N", "2") / "metrics.json")["steps"] == 5


def test_rows_of_the_history(ran) -> None:
    """--log-frequency 1 by default."""
    rows = [(ran(*options) / "history.csv").read_text().count("\n") - 1
            for options in ((), ("--log-frequency", "2"))]
    assert rows == [3, 2]


def test_non_deterministic_and_debug(ran, monkeypatch) -> None:
    """The first is in the environment file; the second switches anomaly detection on in every step."""
    for options, expected in (((), True), (("--non-deterministic",), False)):
        assert read(ran(*options) / "environment.json")["deterministic"] is expected
    seen, backward = [], torch.Tensor.backward

    def watched(self, *arguments, **keywords):
        seen.append(torch.is_anomaly_enabled())
        return backward(self, *arguments, **keywords)
    monkeypatch.setattr(torch.Tensor, "backward", watched)
    debugged = weights(ran("-d"))
    assert seen == [True] * 3 and not torch.is_anomaly_enabled()
    assert all(torch.equal(debugged[key], value) for key, value in weights(ran()).items())


def test_data_workers_cut_the_same_batches(ran, monkeypatch) -> None:
    """As many threads as asked for, and the same bits."""
    pools = []
    monkeypatch.setattr(dataset, "ThreadPoolExecutor",
                        lambda n, name, make=dataset.ThreadPoolExecutor: pools.append(n) or make(n, name))
    worked = weights(ran("--data-workers", "3"))
    assert pools == [3]
    assert all(torch.equal(worked[key], value) for key, value in weights(ran()).items())


@pytest.mark.parametrize(("model", "kind"), [("pcae", "pcae"), ("scae", "scae"), ("hierarchy", "hierarchy"),
                                             ("ccae", "constellation")])
def test_models(model: str, kind: str) -> None:
    """--model builds the model it names, on data that fit, at the rate that is its own."""
    preset = settings.load_preset("mlab", path=REPOSITORY / "params.yaml")
    chosen = mlab.apply(preset, {"model": model, "pcae_lr": None})
    assert chosen.config().kind == kind and port.build(chosen.config()).config.kind == kind
    assert chosen.prepare().source == ("constellation" if model == "ccae" else "mnist")
    wanted, _ = stage.without_epochs(chosen).train(0)
    assert wanted.lr == pytest.approx(0.1 if model == "ccae" else 0.003)
    objects = (wanted.lr_factors or {}).get("object_decoder.")
    assert objects == (pytest.approx(100 / 3) if model in ("scae", "hierarchy") else None)


def test_objects_on_given_parts(ran, tmp_path, monkeypatch) -> None:
    """--model ocae takes --parts and keeps them; without, one line says so."""
    given = ran("--model", "pcae", "--alpha-channel")
    objects = ran("--model", "ocae", "--alpha-channel", "--parts", str(given / "model"))
    before, after = weights(given), weights(objects)
    assert all(torch.equal(after[key], value) for key, value in before.items()) and len(after) > len(before)
    assert read(objects / "config.json")["train"]["lr"] == pytest.approx(2e-6)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *SMALL, "--model", "ocae"]) == 2


@pytest.mark.parametrize("source", [name for name in mlab.DATASETS if name != "affnist"])
def test_datasets(source: str) -> None:
    """--dataset names the source; canvas and channels of the model follow."""
    preset = settings.load_preset("mlab", path=REPOSITORY / "params.yaml")
    chosen = mlab.apply(preset, {"dataset": source})
    assert chosen.prepare().source == source
    config = chosen.config()
    assert config.channels == (3 if source in ("cifar10", "svhn", "svhn_head") else 1)
    assert config.cnn.output_side(config.canvas) > 0


@pytest.mark.parametrize(("options", "message"), [
    (("--model", "pcea"), "did you mean 'pcae'"), (("--dataset", "mnits"), "did you mean 'mnist'"),
    (("--pcae-optimizer", "radamm"), "did you mean 'radam'"),
    (("--pcae-lr-scheduler", "cosine"), "Allowed: cosrestarts, exp, none"),
    (("--model", "pcae", "--ocae-lr", "0.1"), "--ocae-lr: the model pcae has no use for it"),
    (("--model", "ocae", "--pcae-loss-mse-coeff", "1"), "the model ocae has no use for it"),
    (("--model", "ccae", "--alpha-channel"), "--alpha-channel: the model ccae has no use for it"),
    (("--pcae-caps-dim", "5"), "a part pose has 6 numbers"), (("--num-epoch", "3"), "--num-epochs"),
    (("--log-run-name", "a/b"), "give a plain word"), (("--resume",), "start one without --resume"),
    (("--pcae-lr", "-1"), "above 0"), (("--pcae-lr", "0"), "above 0"), (("--ocae-lr", "inf"), "finite"),
    (("--pcae-lr-decay", "0.9"), "counts with --pcae-lr-scheduler exp alone"),
    (("--pcae-lr-scheduler", "exp", "--pcae-lr-restart-interval", "9"), "counts with"),
    (("--pcae-num-caps", "0"), "must be at least 1"), (("--pcae-feat-dim", "-1"), "must be at least 0"),
    (("--pcae-loss-mse-coeff", "nan"), "finite"), (("--data-workers", "-1"), "must be at least 0")])
def test_refused_in_one_line(options, message, tmp_path, monkeypatch, capsys) -> None:
    """Exit code 2, a clear line, and no folder left behind."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--params", str(REPOSITORY / "params.yaml"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_names_for_weights_and_biases(ran, tmp_path, monkeypatch) -> None:
    """Run name, project, team and upload reach the tracker."""
    told = []
    monkeypatch.setattr(tracking, "_wandb", lambda *given: told.append(given) or _nothing())
    monkeypatch.chdir(tmp_path)
    words = ["--log-run-name", "mine", "--log-project", "P", "--log-team", "T", "--log-upload"]
    assert cli.main(["train", *SMALL, *base(), *words]) == 0
    assert told[0][1] == "mine" and told[0][3:] == ("online", "P", "T")


def _nothing():
    import contextlib
    return contextlib.nullcontext(lambda row: None)


def test_completion() -> None:
    """A shell is told options and values."""
    def completed(words: str) -> str:
        code = "from pipelines.cli import main; raise SystemExit(main([]))"
        environment = os.environ | {"_SCAE_COMPLETE": "complete_bash", "COMP_WORDS": words,
                                    "COMP_CWORD": str(len(words.split()) - (not words.endswith(" ")))}
        return subprocess.run([sys.executable, "-c", code], env=environment, cwd=REPOSITORY, text=True,
                              capture_output=True, timeout=120).stdout
    assert {"--model", "--data-workers"} <= set(completed("scae train --").split())
    assert completed("scae train --model ").split() == list(mlab.WORDS)


def test_cosine_restarts_by_hand() -> None:
    """Half cosines from lr to 0."""
    wanted = schedule.Settings(lr=2.0, lr_schedule="cosine_restarts", lr_restart_interval=4)
    rates = [schedule.learning_rate(wanted, step) for step in range(6)]
    assert rates == pytest.approx([2.0, 1 + 0.5**0.5, 1.0, 1 - 0.5**0.5, 2.0, 1 + 0.5**0.5])
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 2.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, 4)
    for rate in rates:
        assert theirs.param_groups[0]["lr"] == pytest.approx(rate)
        theirs.step()
        scheduler.step()
