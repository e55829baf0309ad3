"""The train stage: several seeds at once, torchrun, Weights & Biases, progress, what is recorded."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines import train as stage
from pipelines.support import console, settings, tracking
from pipelines.support.values import BadInput, CheckFailed
from pipelines.training import seeds
from port.checkpoints import contents

STEPS = 6
CHANGED = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", f"train.steps={STEPS}",
           "train.log_every=2", "train.held_out_every=6", "train.held_out_images=32",
           "train.batch_size=8", "train.checkpoint_every=2", "train.checkpoint_seconds=0",
           *(f"model.{key}={str(value).lower() if value is True else value}"
             for key, value in runs.TINY.items())]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """In the repository, checkpoints and results elsewhere."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(stage, "RUNS", tmp_path / "runs")


def preset(*more: str) -> settings.Preset:
    return settings.load_preset("digits", [*CHANGED, *more])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors") \
        | load_file(folder / "model" / "optimizer.safetensors")


@pytest.fixture(scope="module")
def single(tmp_path_factory) -> dict[int, Path]:
    """Seeds 0 and 1, one after the other."""
    results = tmp_path_factory.mktemp("single")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(stage, "RUNS", results / "runs")
        return {seed: stage.run(preset(), seed, results) for seed in (0, 1)}


def test_the_card_says_what_was_measured(single):
    """The held-out numbers of metrics.json, and no other."""
    measured = json.loads((single[0] / "metrics.json").read_text())
    card = (single[0] / "model" / "README.md").read_text()
    names = {name for name in measured if name.startswith("held_out_")}
    assert names and all(f"| {name} | {measured[name]:.6g} |" in card for name in names)
    assert card.count("\n- held_out_") + card.count('\n- "held_out_') == len(names) and "| loss |" not in card


def test_a_trained_model_becomes_a_checkpoint(single, tmp_path, capsys):
    """Slots and the step they stand at; slots of no known step are left out, since nothing would read them."""
    model, prefix = single[0] / "model", tmp_path / "model.ckpt-4"
    assert cli.main(["convert", "--to", "tf", str(model), str(prefix), "--no-verify"]) == 0
    sorted_out = contents.sort_out(port.read_checkpoint(prefix))
    assert sorted_out.step == json.loads((single[0] / "metrics.json").read_text())["steps"]
    assert sorted_out.slots

    undated = tmp_path / "undated"
    shutil.copytree(model, undated)
    slots = load_file(model / "optimizer.safetensors")
    del slots["global_step"]
    save_file(slots, undated / "optimizer.safetensors")
    assert cli.main(["convert", "--to", "tf", str(undated), str(tmp_path / "other.ckpt"), "--no-verify"]) == 0
    assert "left out" in capsys.readouterr().out
    assert not contents.sort_out(port.read_checkpoint(tmp_path / "other.ckpt")).slots


def test_slots_that_the_original_does_not_have_are_left_out(single, tmp_path, capsys):
    """A run of torch's own rules becomes a checkpoint with its step and without their slots; half of ours does not."""
    model = tmp_path / "model"
    shutil.copytree(single[0] / "model", model)
    slots, names = load_file(model / "optimizer.safetensors"), {"ms": "exp_avg_sq", "mom": "exp_avg"}
    others = {f"{name}/{names[slot]}" if slot in names else key: value for key, value in slots.items()
              for name, _, slot in [key.rpartition("/")]}
    save_file(others, model / "optimizer.safetensors")
    assert cli.main(["convert", "--to", "tf", str(model), str(tmp_path / "other.ckpt"), "--no-verify"]) == 0
    assert "the slots exp_avg, exp_avg_sq of" in capsys.readouterr().out
    found = contents.sort_out(port.read_checkpoint(tmp_path / "other.ckpt"))
    assert not found.slots and found.step == int(slots["global_step"])
    save_file({key: value for key, value in slots.items() if not key.endswith("/mom")}, model / "optimizer.safetensors")
    assert cli.main(["convert", "--to", "tf", str(model), str(tmp_path / "half.ckpt"), "--no-verify"]) == 2
    assert "has only one of its slots" in capsys.readouterr().err


def command(*words: str) -> list[str]:
    found = [*words]
    for change in CHANGED:
        found += ["--set", change]
    return found


# ---------------------------------------------------------------------------------- several seeds

def test_seeds_in_turns_in_one_process_are_the_seeds_alone(single, tmp_path):
    """The way of a GPU, without its streams: the same bits, folders and curves."""
    folders = seeds.on_streams(preset(), [0, 1], tmp_path, torch.device("cpu"), "none")
    for seed, folder in zip((0, 1), folders, strict=True):
        assert folder.relative_to(tmp_path).parts == ("train", "digits", str(seed))
        assert not runs.differing(weights(folder), weights(single[seed]))
        recorded = json.loads((folder / "environment.json").read_text())
        assert recorded["seed"] == seed and recorded["seeds_together"] == [0, 1]
    assert runs.differing(weights(folders[0]), weights(folders[1]))
    assert not list((tmp_path / "runs").iterdir())


def test_seeds_in_processes_are_the_seeds_alone(single, tmp_path, tier, capfd):
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    kept = tmp_path / "kept"
    code = stage.main(command("--seeds", "0", "1", "--results", str(tmp_path), "--runs", str(kept)))
    printed = capfd.readouterr().out
    assert code == 0, printed
    assert "[seed 0] train: " in printed and "[seed 1] train: " in printed
    for seed in (0, 1):
        assert not runs.differing(weights(tmp_path / "train" / "digits" / str(seed)),
                                  weights(single[seed]))
    assert sorted(folder.name[:9] for folder in kept.iterdir()) == ["digits-0-", "digits-1-"]


@pytest.mark.parametrize(("threads", "n", "cores", "expected"), [
    (0, 2, 2, (2, 1)), (0, 3, 8, (3, 2)), (0, 5, 2, (2, 1)), (0, 1, 2, (2, 0)), (1, 2, 2, (2, 1)),
    (2, 2, 2, (1, 2)), (4, 2, 2, (1, 4))])
def test_cores_are_shared_out_among_the_seeds(threads, n, cores, expected, monkeypatch):
    """(processes, threads of each); threads that the settings name are kept."""
    monkeypatch.setattr(seeds.os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert seeds.shared_out(runs.settings(threads=threads), n) == expected


def test_a_failing_seed_is_named(tmp_path, tier):
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    with pytest.raises(CheckFailed, match="seed 3 ended with 1"):
        seeds.run(preset("train.lr=1.0e+30"), [3], tmp_path)


@pytest.mark.parametrize(("words", "says"), [
    (("--seeds", "0,0"), "given twice"), (("--seeds", "0;1"), "with commas"),
    (("--wandb", "ofline"), "did you mean 'offline'"), (("--set", "train.amp=bf8"), "amp must be"),
    (("--set", "train.wandb=always"), "unknown value of wandb"),
    (("--set", "train.capture=always", "--device", "cpu"), "needs a GPU")])
def test_bad_input_is_one_line(words, says, capsys, tmp_path):
    assert cli.main(command("train", "--results", str(tmp_path), *words)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0]


# ---------------------------------------------------------------------------------------- torchrun

@pytest.mark.slow
def test_torchrun_trains_the_same_model(single, tmp_path, tier):
    """Two ranks leave what one leaves: scalars to 1e-5, weights to 1e-5 of their largest entry.

    Ten times the bound of `test_distributed`: digits on a larger canvas, six steps, rates of 6e-4.
    """
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m",
         *command("pipelines.train", "--seed", "0", "--results", str(tmp_path))],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}, capture_output=True,
        text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("2 ranks") == 1
    folder = tmp_path / "train" / "digits" / "0"
    assert json.loads((folder / "environment.json").read_text())["ranks"] == 2
    expected, found = (json.loads((f / "metrics.json").read_text()) for f in (single[0], folder))
    for name, value in expected.items():
        if not name.startswith("s"):  # seconds, steps, steps_per_second
            assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-5), name
    after = weights(folder)
    for name, value in weights(single[0]).items():
        assert (after[name] - value).abs().max() <= 1e-5 * value.abs().max() + 1e-8, name


def test_a_batch_that_ranks_cannot_share_is_one_line(tmp_path, monkeypatch, capsys):
    """Refused before the ranks meet; the first of them says it."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3",
                        "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert cli.main(command("train", "--results", str(tmp_path))) == 2
    assert "a batch of 8 cannot be split equally over 3 ranks" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert cli.main(command("train", "--results", str(tmp_path))) == 2
    assert capsys.readouterr().err == ""


# -------------------------------------------------------------------------------- Weights & Biases

class Server:
    """Stands where Weights & Biases would be, and counts who comes."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.calls = 0
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()

    @property
    def environment(self) -> dict[str, str]:
        """No key, no settings of the user, and every way out leads here."""
        address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        return kept | {"WANDB_BASE_URL": address, "HTTP_PROXY": address, "HTTPS_PROXY": address,
                       "OMP_NUM_THREADS": "1", "NETRC": os.devnull}


FOLLOW = """
import sys
from pathlib import Path
from pipelines.support import tracking
with tracking.curves(Path(sys.argv[1]), "digits-0-abc", {"lr": 1e-3}, False, sys.argv[2]) as log:
    for step in (1, 2):
        log({"step": step, "loss": 3.0 / step})
"""


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_offline_writes_a_folder_and_calls_nobody(tmp_path, tier):
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    server = Server()
    done = subprocess.run([sys.executable, "-c", FOLLOW, str(tmp_path), "offline"], cwd=REPOSITORY,
                          env=server.environment | {"HOME": str(tmp_path)}, capture_output=True,
                          stdin=subprocess.DEVNULL, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not re.search("api.?key|log ?in", done.stdout + done.stderr, re.IGNORECASE)
    assert server.calls == 0
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    written = next(run.glob("*.wandb"))
    assert written.stat().st_size > 200 and "digits-0-abc" in written.name
    # Whoever does call is seen, by the server's name or through the proxy.
    caller = "import urllib.request as r; r.urlopen('http://api.wandb.invalid', timeout=20)"
    subprocess.run([sys.executable, "-c", caller], env=server.environment, capture_output=True,
                   timeout=200)
    assert server.calls == 1


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_online_without_a_key_is_refused(tmp_path, monkeypatch):
    import wandb
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(type(wandb.api), "api_key", None)
    with pytest.raises(BadInput, match="needs a key"), \
            tracking.curves(tmp_path, "x", {}, False, "online"):
        pass
    assert not (tmp_path / "wandb").exists()


def test_without_wandb_training_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with tracking.curves(tmp_path, "x", {}, False, "offline") as log:
        log({"step": 1, "loss": 2.0})
    assert capsys.readouterr().out.count("wandb is not installed") == 1


# -------------------------------------------------------------------- progress and what is recorded

def test_precision_is_recorded(tmp_path):
    folder = stage.run(preset("train.amp=bf16", "train.deterministic=true", "train.tf32=true"), 0,
                       tmp_path)
    recorded = json.loads((folder / "environment.json").read_text())
    assert recorded["amp"] == "bf16" and recorded["deterministic"] is True
    assert recorded["tf32"] == {"matmul": True, "convolution": True}
    assert recorded["captured"] is False and recorded["ranks"] == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32


def test_plain_lines_where_there_is_no_terminal(capsys):
    with console.progress(100) as bar:
        for step in range(41, 101):
            bar.step(step)
            if step % 20 == 0:
                bar.row({"loss": 1234.5})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train: continuing from step 40"
    assert re.fullmatch(r"train 60/100  [\d.]+ steps/s  0:\d\d left  loss 1234\.50", lines[1]), lines
    assert lines[-1].startswith("train 100/100") and "\r" not in "".join(lines)


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    with console.progress(50) as bar:
        for step in range(1, 51):
            bar.step(step)
        bar.row({"loss": 7.0})
        assert bar.bar is not None
        columns = " ".join(str(column.render(bar.bar.tasks[0])) for column in bar.bar.columns[2:])
    assert "50/50" in columns and "steps/s" in columns and "loss 7.00" in columns
    assert not capsys.readouterr().out
