"""What the stages prepare, evaluate and reconstruct do for a constellation preset.

`prepare` draws the test constellations once, with NumPy; training ones are drawn on the device as they
are needed. `evaluate` leaves the segmentation accuracy before and after training, with and without
noise, and pictures of points coloured by their pattern and by their capsule.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import port
from pipelines.support import pictures, sections, settings
from pipelines.support.values import BadInput
from port.configuration.fields import refuse_unknown
from port.constellation import data as constellation_data
from port.constellation.batches import Batch, Dataset, PointSettings
from port.core import files
from port.data import dataset as data
from port.evaluation import constellation as evaluate_constellation
from port.evaluation.clustering import bipartite_match

SOURCE = "constellation"
# One colour a pattern, and that of the capsule matched with it; the last are capsules without one.
COLOURS = np.array([(0.12, 0.47, 0.71), (0.90, 0.45, 0.05), (0.17, 0.63, 0.17), (0.58, 0.40, 0.74),
                    (0.84, 0.15, 0.16), (0.55, 0.34, 0.29), (0.35, 0.35, 0.35)])
ABSENT = 0.85
PANEL = 120  # pixels a side
MARGIN = 0.15  # of the panel, around the present points


def is_one(preset: settings.Preset) -> bool:
    """Whether a preset is a constellation model's.

    Raises:
        BadInput: model and data source do not belong together.
    """
    kinds = preset.config().kind == SOURCE, preset.sections["prepare"].get("source") == SOURCE
    if kinds[0] != kinds[1]:
        raise BadInput(f"preset {preset.name}: model: constellation and prepare.source: "
                       "constellation belong together; set both or neither")
    return kinds[0]


def draw(options: dict | None) -> Dataset:
    """Test constellations by the options of section `prepare`: `examples`, `seed`, and the generator's.

    Raises:
        BadInput: a refused value.
        ConfigError: an unknown option.
    """
    given = dict(options or {})
    examples, seed = given.pop("examples", 10_000), given.pop("seed", 0)
    if "slots" in given:
        given["slots"] = tuple(given["slots"])
    refuse_unknown(given, PointSettings.__dataclass_fields__, "options of source constellation")
    try:
        wanted = PointSettings(**given)
        found = constellation_data.create(np.random.RandomState(seed), examples, **asdict(wanted))
    except (TypeError, ValueError) as error:
        raise BadInput(f"options of source constellation: {error}") from None
    return Dataset(wanted, Batch(*(torch.from_numpy(field) for field in found)))


def prepare(preset: settings.Preset, folder: Path) -> dict:
    """Write the test constellations; returns the summary for metrics.json."""
    test = draw(preset.prepare().options).test
    with files.whole(folder / "data.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **{name: field.numpy() for name, field in test._asdict().items()})
    return {"name": SOURCE, "test": {"examples": len(test.corners),
                                     "mean_points": test.presence.sum(1).mean().item(),
                                     "per_slot": test.pattern_presence.sum(0).int().tolist()},
            "points": test.corners.shape[1]}


def read(preset: settings.Preset, folder: Path) -> Dataset:
    """What `prepare` wrote.

    Raises:
        DataError: the file cannot be read.
    """
    options = {k: v for k, v in (preset.prepare().options or {}).items() if k != "examples"}
    try:
        with np.load(folder / "data.npz", allow_pickle=False) as file:
            test = Batch(*(torch.from_numpy(file[name]) for name in Batch._fields))
    except (OSError, ValueError, KeyError) as error:
        raise data.DataError(f"{folder / 'data.npz'} cannot be read ({error}); run the prepare stage "
                             "again") from None
    return Dataset(draw({**options, "examples": 1}).wanted, test)


def evaluate(preset: settings.Preset, seed: int, results: str | os.PathLike, dataset: Dataset,
             final: port.ConstellationAutoencoder, place: torch.device, steps: int | None,
             on: str | None = None) -> dict:
    """Segmentation accuracy and likelihood, before and after training, without and with noise.

    Args:
        preset: its section `evaluate` counts.
        seed: of the run; the initial weights are drawn from it again.
        results: folder of the results.
        dataset: from `read`.
        final: the trained model.
        place: where it runs.
        steps: updates it has seen.
        on: another data source; there is none for constellations.

    Returns:
        What goes into metrics.json; confusion.csv and the pictures are written here.
    """
    if on is not None:
        raise BadInput(f"preset {preset.name}: constellations are evaluated on their own test "
                       f"examples only, not on {on}")
    wanted = preset.evaluate()
    initial = port.build(final.config, seed).to(place).eval()
    dataset = dataset.to(place)
    measured: dict = {"preset": preset.name, "seed": seed, "steps": steps, "data": SOURCE,
                      "level": wanted.level, "protocols": {}}
    seen = {}
    for protocol, noise_seed in (("clean", None), ("faithful", wanted.seed)):
        measured["protocols"][protocol] = {}
        for moment, model in (("initial", initial), ("final", final)):
            found = seen[protocol, moment] = evaluate_constellation.collect(
                model, dataset.test, wanted.batch_size, noise_seed=noise_seed)
            share = _share(found.correct, found.present, wanted)
            if not np.isfinite(found.log_prob):  # whichever capsule comes first is then called the answer
                share |= dict.fromkeys(("value", "low", "high"), float("nan"))
            measured["protocols"][protocol][moment] = {
                "segmentation": share, "log_prob": found.log_prob, "test_examples": len(found.present)}
    last = seen["clean", "final"]
    several = (dataset.test.pattern_presence.sum(1) > 1).cpu().numpy()
    measured["several_patterns"] = {
        moment: _share(seen["clean", moment].correct[several], last.present[several], wanted)
        for moment in ("initial", "final")}
    measured["baseline"] = {"one_capsule": _share(last.one_capsule, last.present, wanted),
                            "one_capsule_several_patterns": _share(
                                last.one_capsule[several], last.present[several], wanted)}
    measured["checks"] = checks(measured)
    measured["learned"] = all(check["passed"] for check in measured["checks"])
    folder = settings.folder_of("evaluate", preset.name, seed, results)
    write_pictures(folder / "pictures", {"before": initial, "after": final}, dataset.test,
                   wanted.n_pictures)
    say(measured)
    return measured


def _share(part: np.ndarray, whole: np.ndarray, wanted: sections.Evaluate) -> dict:
    return evaluate_constellation.share(part, whole, wanted.seed, wanted.bootstrap_draws,
                                        wanted.level)._asdict()


def checks(measured: dict) -> list[dict]:
    """What a run that has learned must show: intervals apart from step 0 and from a single capsule."""
    clean = measured["protocols"]["clean"]
    final = clean["final"]["segmentation"]
    found = []
    for name, other in (("step 0", clean["initial"]["segmentation"]),
                        ("one capsule for all points", measured["baseline"]["one_capsule"])):
        found.append({"check": f"segmentation above {name}", "initial": other["value"],
                      "final": final["value"], "required": True,
                      "passed": bool(final["low"] > other["high"]),
                      "says": f"segmentation {final['value']:.3f} [{final['low']:.3f}, "
                              f"{final['high']:.3f}] against {other['value']:.3f} of {name}"})
    return found


def say(measured: dict) -> None:
    """The accuracies as a few lines."""
    for protocol, moments in measured["protocols"].items():
        before, after = (moments[moment]["segmentation"] for moment in ("initial", "final"))
        print(f"evaluate, {protocol} protocol, {moments['final']['test_examples']} constellations: "
              f"segmentation {before['value']:.3f} -> {after['value']:.3f} "
              f"[{after['low']:.3f}, {after['high']:.3f}], log_prob {moments['initial']['log_prob']:.2f} "
              f"-> {moments['final']['log_prob']:.2f}")
    several, one = measured["several_patterns"], measured["baseline"]["one_capsule"]
    print(f"  with several patterns {several['initial']['value']:.3f} -> {several['final']['value']:.3f}; "
          f"one capsule for all points {one['value']:.3f}")
    for check in measured["checks"]:
        print(f"  {'ok    ' if check['passed'] else 'FAILED'} {check['says']}")


@torch.no_grad()
def write_pictures(folder: Path, models: dict[str, port.ConstellationAutoencoder], test: Batch,
                   n_examples: int) -> list[Path]:
    """One picture a model: points by pattern above, by capsule below, with the capsules' votes.

    Examples with one pattern show nothing and are passed over. A capsule has the colour of the pattern
    it is matched with; rings are the votes of the capsules that explain a point.
    """
    several = torch.nonzero(test.pattern_presence.sum(1) > 1)[:n_examples, 0]
    test = Batch(*(field[several] for field in test))
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, model in models.items():
        shown = {key: value.cpu().numpy() for key, value in
                 model(test.corners, test.presence, pictures=True).pictures.items()}
        capsule, n_votes = shown["is_from_capsule"], model.config.obj_decoder.n_votes
        points, there, pattern = (field.cpu().numpy() for field in (
            test.corners, test.presence, test.pattern_id))
        columns = []
        for i in range(len(points)):
            colour_of = capsule_colours(capsule[i], pattern[i], there[i])
            used = np.unique(capsule[i][there[i] > 0])
            votes = shown["vote"][i].reshape(-1, n_votes, 2)
            rings = [(vote, COLOURS[colour_of[o]]) for o in used for vote in votes[o]]
            columns.append(np.concatenate([
                panel(points[i], there[i], COLOURS[pattern[i] % len(COLOURS)]),
                panel(points[i], there[i], COLOURS[[colour_of[c] for c in capsule[i]]], rings)]))
        gap = np.full((columns[0].shape[0], 3, 3), pictures.SHADE)
        row = np.concatenate([piece for column in columns for piece in (column, gap)][:-1], 1)
        paths.append(pictures.save_png(folder / f"points_{name}.png", row))
    return paths


def capsule_colours(capsule: np.ndarray, pattern: np.ndarray, there: np.ndarray) -> dict[int, int]:
    """Colour number of each capsule of one example: its matched pattern's, else one of the last."""
    match = bipartite_match(capsule, pattern, presence=there)
    seen, patterns = np.unique(capsule), np.unique(pattern)
    matched = {int(seen[col]): int(patterns[row]) for row, col in zip(match.row, match.col)
               if ((capsule == seen[col]) & (pattern == patterns[row]) & (there > 0)).any()}
    free = iter(range(len(COLOURS) - 1, -1, -1))
    return {int(c): matched.get(int(c), next(free)) for c in seen}


def panel(points: np.ndarray, there: np.ndarray, colours: np.ndarray, rings=()) -> np.ndarray:
    """One example as pixels: discs for present points, grey specks for absent ones, rings for votes."""
    shown = points[there > 0]
    middle = (shown.max(0) + shown.min(0)) / 2
    reach = max(float((shown.max(0) - shown.min(0)).max()) / 2, 1e-3) / (1 - 2 * MARGIN)
    y, x = np.mgrid[:PANEL, :PANEL]
    pixels = np.ones((PANEL, PANEL, 3))

    def distance(point: np.ndarray) -> np.ndarray:
        column, row = (np.array([1, -1]) * (point - middle) / reach + 1) / 2 * PANEL  # y points up
        return np.hypot(x - column, y - row)

    for point in points[there == 0]:
        pixels[distance(point) < 1.5] = ABSENT
    for point, colour in zip(shown, colours[there > 0]):
        pixels[distance(point) < 5] = colour
    for vote, colour in rings:
        pixels[np.abs(distance(vote) - 8) < 0.8] = colour
    pixels[[0, -1]] = pixels[:, [0, -1]] = pictures.SHADE
    return pixels
