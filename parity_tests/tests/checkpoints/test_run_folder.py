"""Pointing at a run is enough: its model, its preprocessing, its pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli, prepare
from pipelines import train as stage
from pipelines.commands import given_images, reconstruct
from pipelines.support import pictures, settings, values
from pipelines.training import given_weights
from port.data import dataset

CHANGED = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.steps=1",
           "train.held_out_every=0", "train.batch_size=8", "train.shift=uniform",
           *(f"model.{key}={str(value).lower() if value is True else value}"
             for key, value in runs.TINY.items())]
POINTS = ["model.n_dims=8", "model.n_layers=1", "prepare.options={examples: 12, seed: 1}",
          "train.steps=1", "train.batch_size=4", "train.held_out_every=0"]


def trained(name: str, changed: list[str], results: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(stage, "RUNS", results / "runs")
        return stage.run(settings.load_preset(name, changed), 3, results)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of digits, moved away from everything else that was written."""
    away = tmp_path_factory.mktemp("away") / "run"
    return shutil.copytree(trained("digits", CHANGED, tmp_path_factory.mktemp("digits")), away)


@pytest.fixture(scope="module")
def points(tmp_path_factory) -> Path:
    away = tmp_path_factory.mktemp("away") / "points"
    return shutil.copytree(trained("constellation", POINTS, tmp_path_factory.mktemp("points")), away)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path) -> None:
    """A folder without params.yaml, data and results."""
    monkeypatch.chdir(tmp_path)


def test_load_rebuilds_model_and_preprocessing(run: Path) -> None:
    """The model is that of model/, the data those of the run, images come where training puts them."""
    model, inner = port.load(run), port.load(run / "model")
    preset, seed = settings.preset_of_run(run)
    assert (preset.name, seed, model.config) == ("digits", 3, inner.config)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(
        model.state_dict().values(), inner.state_dict().values(), strict=True))
    test = model.preprocessing.load(download=False).test
    assert torch.equal(test.images, prepare.load(preset.prepare()).test.images)
    assert test.images.shape[1:] == (1, 12, 12)

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    some = test.images[:6]
    middle = model.preprocessing(some)
    assert torch.equal(middle[:, :, 1:13, 1:13], some / 255) and middle[:, :, 0].sum() == 0
    assert torch.equal(model.preprocessing(some.numpy()[:, 0], generator()),
                       dataset.place(some, 14, generator(), uniform=True))
    assert model(middle).mass_explained_by_capsule.shape == (6, 5)
    assert inner.preprocessing.source is None
    with pytest.raises(dataset.DataError, match="load the folder of its run"):
        inner.preprocessing.load()


def test_a_constellation_s_preprocessing(points: Path) -> None:
    """Raw points are scaled as the generator scales a block; its settings are the run's."""
    model = port.load(points)
    raw = torch.rand(3, 11, 2, dtype=torch.float64) * 40 - 7
    ours = model.preprocessing(raw)
    assert ours.dtype == torch.float32 and ours.min() == -1 and ours.max() == pytest.approx(1, abs=1e-6)
    assert model(ours).loss.isfinite() and model.preprocessing.load().n_points == 11
    with pytest.raises(dataset.DataError, match="must be floats"):
        model.preprocessing(torch.zeros(3, 11))


def test_what_is_no_run_is_named(run: Path, tmp_path: Path) -> None:
    """A run without its config.json or model, and images of another kind."""
    broken = shutil.copytree(run, tmp_path / "broken")
    (broken / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json beside model/"):
        port.load(broken)
    shutil.rmtree(broken / "model")
    with pytest.raises(ValueError, match="or a run's"):
        port.load(broken)
    with pytest.raises(dataset.DataError, match=r"uint8 \[n, 1, height, width\] .*not float32"):
        port.load(run).preprocessing(torch.zeros(2, 1, 12, 12))


def test_a_numbered_run_leads_to_the_run_in_it(run: Path, tmp_path: Path, capsys) -> None:
    """runs/digits/1 is enough for every command; with two runs in it both are named."""
    numbered = tmp_path / "runs" / "digits" / "1"
    inside = shutil.copytree(run, numbered / "train" / "digits" / "3")
    assert port.load(numbered).preprocessing == port.load(run).preprocessing
    assert given_weights.model_folder(str(numbered), 0, "results") == inside / "model"
    assert given_weights.model_folder(str(inside), 0, "results") == inside / "model"
    assert given_weights.model_folder(str(inside / "model"), 0, "results") == inside / "model"
    assert scae("reconstruct", numbered, "--images", 2, "--out", tmp_path / "seen") == 0
    assert scae("report", "--diff", numbered, inside) == 0
    assert "measures: the same" in capsys.readouterr().out
    shutil.copytree(run, numbered / "train" / "digits" / "4")
    for words in (("reconstruct", numbered), ("report", numbered), ("equivariance", numbered)):
        assert scae(*words) == 2
        error = capsys.readouterr().err
        assert "several runs; name one: " in error and str(inside) in error and error.count("\n") == 1
    with pytest.raises(ValueError, match="several runs"):
        port.load(numbered)
    with pytest.raises(values.BadInput, match="several runs"):
        given_weights.model_folder(str(numbered), 0, "results")


def scae(*words: object) -> int:
    return cli.main([str(word) for word in words])


def test_reconstruct_needs_the_run_alone(run: Path, tmp_path: Path, capsys) -> None:
    """Every picture, and which capsule explains which part as the model itself says it."""
    assert scae("reconstruct", run, "--images", 5) == 0
    folder = tmp_path / "results" / "reconstruct" / "digits" / "3"
    names = ("reconstructions", "templates", "parts", "transformed", "capsules", "explained")
    assert capsys.readouterr().out.split() == [
        str(path.relative_to(tmp_path)) for path in (*(folder / f"{name}.png" for name in names),
                                                     folder / "explained.json")]
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((folder / "explained.json").read_text())
    model = port.load(run)
    test = model.preprocessing.load(download=False).test
    placed = dataset.place(test.images[:5], 14, torch.Generator().manual_seed(3), True)  # uniformly, as in training
    posterior = model(placed, taps=True).taps["res/posterior_mixing_probs"]
    assert [row["label"] for row in rows] == test.labels[:5].tolist()
    for i, row in enumerate(rows):
        assert sorted(part["part"] for part in row["parts"]) == [0, 1, 2, 3]
        for part in row["parts"]:
            assert part["posterior"] == pytest.approx(posterior[i, part["part"], part["capsule"]].item(),
                                                      abs=6e-5)
            assert part["posterior"] == pytest.approx(posterior[i, part["part"]].max().item(), abs=6e-5)


def test_pictures_lie_in_the_results_of_their_run(run: Path, tmp_path: Path) -> None:
    """Of a numbered run nothing goes to the results beside it; --results still says where."""
    shutil.copytree(run, tmp_path / "runs/digits/1/train/digits/3")
    assert scae("reconstruct", "runs/digits/1", "--images", 1) == 0
    assert sorted(path.name for path in (tmp_path / "runs/digits/1").iterdir()) == ["prepare", "reconstruct", "train"]
    assert not (tmp_path / "results").exists()
    assert scae("reconstruct", "runs/digits/1", "--images", 1, "--results", "given") == 0
    assert (tmp_path / "given/reconstruct/digits/3/templates.png").is_file()


def test_shares_of_the_parts_add_up(run: Path) -> None:
    """The parts' light and the background's are the mean of the mixture."""
    model = port.load(run)
    result = model(torch.rand(3, 1, 14, 14), taps=True, pictures=True)
    logits = result.taps["part_dec/mixing_logits_with_bg"].detach()
    shares = pictures.part_shares(logits.numpy(), result.pictures["transformed_templates"].detach().numpy())
    background = torch.softmax(logits, 1)[:, -1, ..., 0] * torch.sigmoid(model.part_decoder.bg_value)
    np.testing.assert_allclose(shares.sum(1) + background.detach().numpy(),
                               result.pictures["bottom_up"][:, 0].detach().numpy(), atol=1e-6)


def test_a_constellation_s_points(points: Path, tmp_path: Path, capsys) -> None:
    assert scae("reconstruct", points, "--images", 2, "--out", tmp_path / "seen") == 0
    assert (tmp_path / "seen" / "points_run.png").stat().st_size > 1000
    np.save(tmp_path / "x.npy", np.zeros((1, 12, 12)))
    assert scae("reconstruct", points, "--images", tmp_path / "x.npy") == 2
    assert "number of test examples" in capsys.readouterr().err


def test_images_of_a_file(run: Path, tmp_path: Path) -> None:
    """The same picture as bytes, floats, channels first or last, in an archive, as PNG."""
    image = np.random.default_rng(0).integers(0, 256, (2, 12, 10), dtype=np.uint8)
    files = {"a.npy": image, "b.npy": image / 255.0, "c.npy": image[..., None], "d.npy": image[:, None]}
    for name, array in files.items():
        np.save(tmp_path / name, array)
    np.savez(tmp_path / "e.npz", label=np.zeros(2), images=image)
    for name in (*files, "e.npz"):
        assert np.array_equal(given_images.read(tmp_path / name, 1, 14).images.numpy()[:, 0], image), name
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(image[0]).save(tmp_path / "f.png")
    assert np.array_equal(given_images.read(tmp_path / "f.png", 1, 14).images.numpy()[0, 0], image[0])
    assert given_images.read(tmp_path / "f.png", 3, 14).images.shape == (1, 3, 12, 10)
    assert len(reconstruct.of_run(run, images=str(tmp_path / "e.npz"), out=tmp_path / "seen")) == 7


def test_images_of_a_folder(run: Path, tmp_path: Path, capsys) -> None:
    """Arrays and pictures by name; other files are left alone; an empty one and two sizes are refused."""
    folder = tmp_path / "some"
    folder.mkdir()
    image = np.random.default_rng(1).integers(0, 256, (3, 12, 12), dtype=np.uint8)
    assert scae("reconstruct", run, "--images", folder) == 2
    assert "no file .npy, .npz, .png" in capsys.readouterr().err
    np.save(folder / "b.npy", image[1:])
    np.save(folder / "a.npy", image[0])
    (folder / "notes.txt").write_text("x")
    assert np.array_equal(given_images.read(folder, 1, 14).images.numpy()[:, 0], image)
    assert scae("reconstruct", run, "--images", folder, "--out", tmp_path / "seen") == 0
    rows = json.loads((tmp_path / "seen" / "explained.json").read_text())
    assert [sorted(row) for row in rows] == [["image", "parts"]] * 3, "nobody gave these images a label"
    np.save(folder / "c.npy", np.zeros((1, 10, 12)))
    capsys.readouterr()
    assert scae("reconstruct", run, "--images", folder) == 2
    error = capsys.readouterr().err
    assert "c.npy: 10x12 pixels, a.npy has 12x12" in error and error.count("\n") == 1


@pytest.mark.parametrize(("words", "message"), [
    (["--images", "nowhere.png"], "neither a number nor a file"), (["--images", "0"], "at least 1"),
    (["--images", "large.npy"], "do not fit the model's canvas of 14"),
    (["--images", "dark.npy"], "must be uint8, or floats in [0, 1], not float64 in [-1, 0]"),
    (["--images", "cut.npy"], "cannot be read"), (["--images", "text.txt"], "or a file .npy"),
    (["--images", "flat.npy"], "of shape [3, 12, 12, 2]"), (["--model", "x"], "leave --model"),
    (["--set", "train.lr=1"], "leave --model")])
def test_bad_input_is_one_line(run: Path, tmp_path: Path, words, message, capsys) -> None:
    for name, array in (("large", np.zeros((1, 15, 15))), ("dark", np.linspace(-1, 0, 144).reshape(12, 12)),
                        ("flat", np.zeros((3, 12, 12, 2)))):
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "text.txt").write_text("x")
    assert scae("reconstruct", run, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert scae("reconstruct", tmp_path) == 2 and "config.json beside model" in capsys.readouterr().err
