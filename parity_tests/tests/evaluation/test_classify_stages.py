"""What the stages leave of CapsNet and matrix capsules: evaluation, tables, dimensions, reconstructions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests.tests.evaluation.tiny_classifiers import PARAMS, TINY, generated, preset, tiny_model
from pipelines import aggregate, capsnet_dimensions, capsnet_reconstruction, evaluate, prepare, train
from pipelines.evaluation import classes
from pipelines.results import table as results_table
from pipelines.support import sections, settings
from pipelines.support.values import BadInput
from port import families as models
from port.data import dataset as data
from port.evaluation import classes as evaluate_classes
from port.training import loop


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tiny presets trained and evaluated."""
    folder = tmp_path_factory.mktemp("classify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in TINY:
            train.run(preset(name), 0, folder)
            evaluate.run(preset(name), 0, folder)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", TINY)
def test_what_the_stages_leave(name: str, results: Path) -> None:
    """Accuracy with its interval, the confusion matrix, pictures, a model that loads."""
    measured = read(results / "evaluate" / name / "0" / "metrics.json")
    final = measured["protocols"]["clean"]["final"]
    assert measured["steps"] == 6 and final["test_images"] == 450
    assert 0 <= final["accuracy"]["low"] <= final["accuracy"]["value"] <= final["accuracy"]["high"]
    assert measured["learned"] is all(check["passed"] for check in measured["checks"])
    rows = (results / "evaluate" / name / "0" / "confusion.csv").read_text().splitlines()[1:]
    table = {tuple(row.split(",")[1:3]): int(row.split(",")[3]) for row in rows}
    assert sum(table.values()) == 450
    assert sum(n for (actual, given), n in table.items() if actual == given) / 450 == pytest.approx(
        final["accuracy"]["value"])
    pictures = {path.stem for path in (results / "evaluate" / name / "0" / "pictures").glob("*.png")}
    assert pictures == {"mistakes"} | ({"decoded"} if name.startswith("capsnet") else set())
    model = port.load(results / "train" / name / "0")
    assert isinstance(model, models.FAMILIES[name.split("_")[0]].model)
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    assert model(model.preprocessing(images)).evidence.shape == (2, 10)
    history = (results / "train" / name / "0" / "history.csv").read_text().splitlines()
    assert "held_out_accuracy" in history[0] and len(history) == 3


def test_on_another_source(results: Path, monkeypatch, capsys) -> None:
    """Its test images, the same model; images that do not fit are refused."""
    monkeypatch.chdir(results)
    images = torch.randint(0, 256, (30, 1, 18, 18), dtype=torch.uint8)
    other = data.Dataset("affnist_like", data.Split(images[:0], torch.arange(0)),
                         data.Split(images, torch.arange(30) % 10))
    monkeypatch.setattr(evaluate, "load", lambda wanted: other)
    folder = evaluate.run(preset("em_mnist"), 0, results, on="affnist")
    measured = read(folder / "metrics.json")
    assert folder.parent.name == "em_mnist_on_affnist" and measured["data"] == "affnist_like"
    assert measured["trained_on"] == "digits"
    assert measured["protocols"]["clean"]["final"]["test_images"] == 30
    with pytest.raises(BadInput, match="affnist has images of 1x18x18, the model of preset "
                                                "capsnet_mnist takes 1 channel"):
        evaluate.run(preset("capsnet_mnist"), 0, results, on="affnist")


@pytest.mark.parametrize("name", TINY)
def test_aggregate_and_table(name: str, results: Path) -> None:
    """One seed of another length and data has no verdict; the README's table has its row."""
    aggregate.run(preset(name), results)
    row = read(results / "aggregate" / name / "metrics.json")["protocols"]["clean"]["accuracy"]
    assert row["paper"] is None and row["verdict"] == "none"  # digits, not MNIST
    curves = (results / "aggregate" / name / "curves.csv").read_text().splitlines()
    assert curves[0] == "seed,step,loss,held_out_loss,accuracy,held_out_accuracy"
    line = next(line for line in results_table.markdown(results).splitlines() if f"`{name}`" in line)
    assert "test accuracy" in line and "1 seed, 6 steps" in line and line.count("|") == 8


def test_the_table_without_results(tmp_path: Path) -> None:
    """The papers' figures, and "not yet run"."""
    lines = results_table.markdown(tmp_path)
    for name, figure in (("capsnet_mnist", "99.75"), ("em_mnist", "99.56")):
        assert (f"| MNIST, `{name}` | test accuracy | {figure} % | not yet run | not yet run | – | – |"
                in lines)


def test_what_a_classifier_that_has_learned_must_show() -> None:
    """An accuracy above that of step 0 by so many standard errors."""
    def check(initial: float, final: float) -> dict:
        moments = {moment: {"accuracy": {"value": value, "low": value, "high": value, "n": 100,
                                         "standard_error": np.sqrt(value * (1 - value) / 100)}}
                   for moment, value in (("initial", initial), ("final", final))}
        (found,) = classes.checks(moments, sections.Evaluate(standard_errors=5.0))
        return found
    better = check(0.1, 0.9)
    assert (better["initial"], better["final"], better["passed"]) == (0.1, 0.9, True)
    assert better["says"] == "test accuracy 0.1000 -> 0.9000 (+18.9 standard errors, 5 required)"
    assert not check(0.9, 0.1)["passed"] and not check(0.5, 0.7)["passed"]


@pytest.mark.parametrize(("clean_shift", "places"), [(True, 7), (False, None)])
def test_places_are_drawn_where_the_evaluation_says_so(clean_shift, places, results: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(classes.evaluate_classes, "collect", lambda *given: asked.append(given[-1]) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate.run(preset("em_mnist", f"evaluate.clean_shift={clean_shift}", "evaluate.seed=7"), 0, results)
    assert asked == [places]


def test_the_surest_mistakes_come_first(tmp_path: Path, monkeypatch) -> None:
    """Sure is how far the evidence for the class given lies above that for the true one."""
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 18, 18) * 50
    seen = evaluate_classes.Answers(np.array([0, 0, 0, 1]), np.array(
        [[0.5, 0.6], [0.1, 0.9], [0.9, 0.1], [0.7, 0.3]]), 0.0, None)
    shown = []
    monkeypatch.setattr(classes.pictures, "sheet", lambda given: shown.append(given) or np.zeros((2, 2, 1)))
    classes.write_pictures(tmp_path, tiny_model("em_mnist"), data.Split(images, torch.tensor([0, 0, 0, 1])), seen,
                           "centred", None, 3)
    assert (shown[0][:, 0, 9, 9] * 255).round().tolist() == [50, 150, 0]


def test_accuracy_is_counted_right() -> None:
    """Against the network itself, image by image."""
    model, split = tiny_model("capsnet_mnist"), generated().test
    seen = evaluate_classes.collect(model, split, 7)
    with torch.no_grad():
        alone = [int(model(split.images[i:i + 1] / 255).evidence.argmax()) for i in range(len(split))]
    assert seen.predicted.tolist() == alone
    error = sum(float((model(x[None] / 255).reconstruction - x / 255).square().sum().detach())
                for x in split.images)
    assert seen.error == pytest.approx(error / len(split), rel=1e-5)


def test_dimensions(results: Path) -> None:
    """One number a row from -l·δ to +l·δ; the middle column is the plain reconstruction."""
    model = port.load(results / "train" / "capsnet_mnist" / "0")
    image = torch.rand(1, 1, 16, 16)
    drawn = capsnet_dimensions.perturbed(model, image, 3, 0.1, 2)
    assert drawn.shape == (4, 5, 1, 16, 16)
    with torch.no_grad():
        capsules, keep = model.encode(image), torch.tensor([3])
        for atom, column in ((0, 0), (3, 4), (2, 2)):
            changed = capsules.clone()
            changed[0, 3, atom] += 0.1 * (column - 2)
            torch.testing.assert_close(drawn[atom, column], model.decode(changed, keep)[0])
    folder = capsnet_dimensions.run(preset("capsnet_mnist"), 0, sections.CapsnetDimensions(), results)
    measured = read(folder / "metrics.json")
    shown = {int(path.stem.split("_")[1]) for path in (folder / "pictures").glob("class_*.png")}
    assert shown == set(range(10)) - set(measured["never_right"]) and shown
    assert all(len(row) == 4 for row in measured["mean_squared_change"].values())
    test, label = prepare.dataset_for(preset("capsnet_mnist"), results).test, min(shown)
    seen = evaluate_classes.collect(model, test, 128)
    first = np.flatnonzero(seen.correct & (seen.labels == label))[0]
    drawn = capsnet_dimensions.perturbed(model, test.images[[first]] / 255, label, 0.05, 5)
    expected = [np.mean([float((one - row[5]).square().sum()) for one in row]) for row in drawn]
    assert measured["mean_squared_change"][str(label)] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_reconstruction_side_by_side(results: Path, monkeypatch) -> None:
    """The frozen run starts from the trained weights, keeps its capsules and is compared."""
    monkeypatch.chdir(results)
    frozen = preset("capsnet_mnist", "model.reconstruction=frozen", "train.start_from=capsnet_mnist")
    frozen = settings.Preset("frozen", frozen.sections, frozen.model)
    train.run(frozen, 0, results)
    one, other = (port.load(results / "train" / name / "0").state_dict()
                  for name in ("capsnet_mnist", "frozen"))
    moved = {key for key in one if not torch.equal(one[key], other[key])}
    assert moved and all(key.startswith("decoder") for key in moved), moved
    assert read(results / "train/frozen/0/config.json")["train"]["start_from"] == "capsnet_mnist"
    folder = capsnet_reconstruction.run(preset("capsnet_mnist"), frozen, 0,
                                        sections.CapsnetReconstruction(n_images=5), results)
    measured = read(folder / "metrics.json")
    seen = measured["models"]
    assert seen["frozen"]["accuracy"] == seen["capsnet_mnist"]["accuracy"]
    assert seen["frozen"]["squared_error"] != seen["capsnet_mnist"]["squared_error"]
    dataset = train.load(preset("capsnet_mnist"), results, loop.ALONE)
    mean = dataset.train.images.double().mean(0) / 255
    expected = (dataset.test.images / 255 - mean).square().sum((1, 2, 3)).mean()
    assert measured["mean_image_squared_error"] == pytest.approx(float(expected), rel=1e-5)
    assert (folder / "reconstructions.png").stat().st_size > 500


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "least"), [("capsnet_mnist_small", 300, 0.9),
                                                      ("em_mnist_small", 800, 0.75)])
def test_the_cpu_presets_learn(name: str, steps: int, least: float, tier: str) -> None:
    """On scikit-learn's digits, which are always there, in a tenth to a quarter of their length."""
    if tier != "deep":
        pytest.skip("deep tier: trains for minutes")
    chosen = settings.load_preset(name, ["prepare.source=digits", f"train.steps={steps}",
                                         "train.held_out_every=0"], PARAMS)
    dataset = data.Dataset(*vars(_digits()).values())
    model = port.build(chosen.config(), 0)
    loop.train(model, dataset, chosen.train(0)[0])
    found = evaluate_classes.collect(model, dataset.test, 150)
    assert np.mean(found.correct) >= least, np.mean(found.correct)


def _digits() -> data.Dataset:
    from port.data import sources
    return sources.load("digits", enlarge=28)
