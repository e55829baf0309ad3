"""Stage `ablation`: one setting changed at a time, everything else as in a preset.

    python -m pipelines.ablation --row no_deformations --seed 0
    python -m pipelines.ablation --all                            every row and seed in one process
    python -m pipelines.ablation --table                          the rows side by side
    python -m pipelines.ablation --section ablation_small --row complete --seed 1 --unless-done

The rows stand in section `ablation` of params.yaml: the paper's ablation, and each quirk of the original
that can be repaired, repaired alone. Leaves results/ablation/<row>/<seed>/ with metrics.json, config.json
and environment.json, and with --table results/ablation_table/metrics.json. The number of steps is in every
file: rows of another length, or of other settings, are not put beside each other.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

import port
from pipelines import train as training
from pipelines.prepare import dataset_for
from pipelines.support import console, environment, locks, sections, settings
from pipelines.support.command_line import Device, Params, Program, Results, Seed
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, load_params
from port.configuration.fields import from_mapping, unknown
from port.evaluation import clustering as evaluate
from port.evaluation import constellation as evaluate_constellation
from port.training import loop as train
from port.training import sound

IMAGES = ("posterior_kmeans", "prior_kmeans", "posterior_probe", "prior_probe", "rec_ll")
POINTS = ("segmentation", "log_prob")


@dataclass(frozen=True)
class Row:
    """One row of section `ablation.changes`.

    Attributes:
        words: what is changed.
        set: overrides, as `--set` takes them; several of one row change together.
        preset: of which the row is; None is the section's.
        beside: the row that it is compared with; None is the preset's own, without changes.
        quirk: the quirk of the original that is repaired.
        protocol: what is repaired of the faithful evaluation: `noise`, `whole_batches`, `refit`.
    """

    words: str = ""
    set: list | None = None
    preset: str | None = None
    beside: str | None = None
    quirk: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Ablation:
    """Section `ablation`.

    Attributes:
        folder: of the rows, below the results; that of the table has `_table` after it.
        preset: that is changed.
        steps: updates of every row.
        seeds: of every row.
        rows: the rows there are stages of; a subset of `changes`.
        changes: row → `Row`.
    """

    folder: str = "ablation"
    preset: str = "digits"
    steps: int = 200
    seeds: list | None = None
    rows: list | None = None
    changes: dict | None = None

    def row(self, name: str) -> Row:
        """One row.

        Raises:
            BadInput: no row of this name.
            ConfigError: unknown settings in it.
        """
        if name not in (self.changes or {}):
            raise BadInput(unknown("row of the ablation", name, self.changes or {}))
        row = from_mapping(Row, self.changes[name] or {}, f"ablation.changes.{name}")
        if row.protocol not in (None, "noise", "whole_batches", "refit"):
            raise BadInput(f"ablation.changes.{name}: unknown protocol {row.protocol!r}; it is "
                           "noise, whole_batches or refit")
        if row.beside is not None and row.beside not in self.changes:
            raise BadInput(f"ablation.changes.{name}.beside: "
                           f"{unknown('row', row.beside, self.changes)}")
        return row


def section(params: str | os.PathLike = "params.yaml", steps: int | None = None,
            preset: str | None = None, name: str = "ablation") -> Ablation:
    """Section `ablation` of a params file, or another of its kind, with another length or preset if one is given.

    Raises:
        BadInput: no such section.
        ConfigError: unknown settings in it.
    """
    given = load_params(params).get(name)
    if not given:
        raise BadInput(f"{params} has no section {name}")
    if steps is not None:
        given = given | {"steps": steps}
    if preset is not None:
        given = given | {"preset": preset}
    found = from_mapping(Ablation, given, name)
    if found.steps < 1:
        raise BadInput(f"{name}: steps must be at least 1, not {found.steps}")
    for name in found.rows or []:
        found.row(name)
    return found


def preset_of(wanted: Ablation, row: Row, params: str | os.PathLike) -> settings.Preset:
    """The preset with a row's changes, at the ablation's length."""
    return settings.load_preset(row.preset or wanted.preset, [*(str(s) for s in row.set or []),
                                                             f"train.steps={wanted.steps}"], params)


def run(wanted: Ablation, name: str, seed: int, results: str | os.PathLike = settings.RESULTS,
        params: str | os.PathLike = "params.yaml", device: str | None = None) -> Path:
    """Train one row with one seed and measure it.

    Args:
        wanted: from `section`.
        name: of the row.
        seed: of weights, batches and noise.
        results: folder of the results.
        params: file of presets.
        device: auto, cpu or cuda; None is the preset's.

    Returns:
        The row's folder.

    Raises:
        BadInput: unknown settings.
        NonFiniteLoss: a number is not finite.
    """
    row, folder = wanted.row(name), settings.folder_of(wanted.folder, name, seed, results)
    preset = preset_of(wanted, row, params)
    loop, place = training.check(preset, seed, device)
    with locks.held(folder, "trains"):
        return train_row(name, row, preset, seed, loop, place, folder, results)


def train_row(name: str, row: Row, preset: settings.Preset, seed: int, loop: train.Settings,
              place: torch.device, folder: Path, results: str | os.PathLike) -> Path:
    """What `run` does once the row is known and its folder its own."""
    dataset = dataset_for(preset, results).to(place)
    config = preset.config()
    model = port.build(config, seed).to(place)
    identity = train.identity(config.to_arguments(), asdict(loop), preset.sections["prepare"],
                              {"device": place.type})
    checkpoints = training.RUNS / f"ablation-{name}-{seed}-{identity}"
    sound.clear(checkpoints.parent, checkpoints.name)
    with console.progress(loop.steps, f"ablation {name}, seed {seed}:") as bar:
        trained = train.train(model, dataset, loop, checkpoints, bar.step, bar.row)
    measured = measure(model, dataset, preset.evaluate(), row)
    write_json(folder / "metrics.json", {
        "row": name, "words": row.words, "quirk": row.quirk, "preset": preset.name, "seed": seed,
        "beside": row.beside, "steps": trained.step, "seconds": round(trained.seconds, 1),
        "set": [str(change) for change in row.set or []], "protocol": row.protocol,
        "parameters": sum(p.numel() for p in model.parameters()), "protocols": measured,
        "last": trained.history[-1]})
    write_json(folder / "config.json", preset.resolved() | {"train": asdict(loop)})
    write_json(folder / "environment.json", environment.describe(place, seed=seed, **trained.precision))
    sound.discard(checkpoints)
    return folder


def measure(model: torch.nn.Module, dataset, wanted: sections.Evaluate, row: Row) -> dict:
    """Accuracies and likelihoods under both protocols; of a repaired protocol under that one alone."""
    if isinstance(model, port.ConstellationAutoencoder):
        found = {}
        for protocol, noise_seed in (("clean", None), ("faithful", wanted.seed)):
            seen = evaluate_constellation.collect(model, dataset.test, wanted.batch_size,
                                                  noise_seed=noise_seed)
            found[protocol] = {"segmentation": seen.accuracy, "log_prob": seen.log_prob}
        return found
    if row.protocol is not None:
        return {"repaired": under(model, dataset, wanted, noise=row.protocol != "noise",
                                  whole=row.protocol != "whole_batches", refit=row.protocol != "refit")}
    return {"clean": under(model, dataset, wanted, noise=False, whole=False, refit=False),
            "faithful": under(model, dataset, wanted, noise=True, whole=True, refit=True)}


def under(model: torch.nn.Module, dataset, wanted: sections.Evaluate, noise: bool, whole: bool, refit: bool
          ) -> dict[str, float]:
    """The measures of an image model under one protocol; images are shifted, as in training."""
    def collect(split, seed: int) -> evaluate.Collected:
        return evaluate.collect(model, split, model.config.canvas, wanted.batch_size, seed, noise=noise,
                                whole_batches=whole)

    test = collect(dataset.test, wanted.seed)
    found = {"rec_ll": test.rec_ll}
    fit = None if refit else collect(dataset.train, wanted.seed + 100)
    for kind in ("posterior", "prior"):
        features = getattr(test, kind)
        if fit is None:
            clusters = evaluate.cluster_classify(features, test.labels, dataset.n_classes,
                                                 evaluate.new_kmeans(dataset.n_classes, wanted.seed))
        else:
            clusters = evaluate.cluster_transfer(getattr(fit, kind), fit.labels, features, test.labels,
                                                 dataset.n_classes, wanted.seed)
        found[f"{kind}_kmeans"] = float((clusters.prediction == test.labels).mean())
        probed = getattr(test, f"{kind}_correct")
        if probed is not None:
            found[f"{kind}_probe"] = float(probed.mean())
    return found


def table(wanted: Ablation, results: str | os.PathLike = settings.RESULTS,
          params: str | os.PathLike = "params.yaml") -> dict:
    """The rows that are there side by side: mean over seeds, and the difference to the row beside.

    Raises:
        BadInput: no row is there.
    """
    rows, left_out = [], []
    for name in wanted.rows or []:
        row = wanted.row(name)
        preset = row.preset or wanted.preset
        seeds, missing = finished(wanted, name, results, params)
        left_out += missing
        if seeds:
            rows.append({"row": name, "words": row.words, "quirk": row.quirk, "preset": preset,
                         "set": [str(change) for change in row.set or []], "beside": beside(wanted, name),
                         "seeds": [found["seed"] for found in seeds], "steps": wanted.steps,
                         "parameters": seeds[0]["parameters"],
                         "protocols": means([found["protocols"] for found in seeds])})
    if not rows:
        raise BadInput(f"no row of {wanted.steps} steps in {Path(results) / wanted.folder}; "
                       "python -m pipelines.ablation --all makes them")
    by_name = {row["row"]: row for row in rows}
    for row in rows:
        other = by_name.get(row["beside"]) if row["beside"] != row["row"] else None
        row["difference"] = {} if other is None else difference(row["protocols"], other["protocols"])
    return {"preset": wanted.preset, "steps": wanted.steps, "full_steps": full_steps(wanted, params),
            "seeds": wanted.seeds, "rows": rows, "left_out": left_out}


def finished(wanted: Ablation, name: str, results: str | os.PathLike, params: str | os.PathLike
             ) -> tuple[list[dict], list[str]]:
    """What each seed of a row that was run with these settings left, and why the other seeds are not there."""
    row, found, left_out = wanted.row(name), [], []
    expected = preset_of(wanted, row, params)
    for seed in wanted.seeds or []:
        folder = settings.folder_of(wanted.folder, name, seed, results)
        metrics, config = read(folder / "metrics.json"), read(folder / "config.json")
        if metrics is None or config is None:
            left_out.append(f"{name}, seed {seed}: not yet run")
        elif (metrics["steps"], metrics["protocol"], config["model"]) != (
                wanted.steps, row.protocol, as_json(expected.model)) or not same_loop(
                config["train"], expected.train(seed)[0]):
            left_out.append(f"{name}, seed {seed}: run with other settings")
        else:
            found.append(metrics)
    return found, left_out


def full_steps(wanted: Ablation, params: str | os.PathLike) -> int:
    """Updates that the preset itself asks for."""
    return settings.load_preset(wanted.preset, None, params).train(0)[0].steps


def beside(wanted: Ablation, name: str) -> str:
    """The row that a row is compared with: itself where it is the one without changes."""
    row = wanted.row(name)
    if row.beside is not None:
        return row.beside
    for other in wanted.changes:
        found = wanted.row(other)
        if not found.set and not found.protocol and found.preset == row.preset:
            return other
    return name


def means(protocols: list[dict]) -> dict:
    """Mean over the seeds, measure by measure."""
    return {protocol: {measure: sum(one[protocol][measure] for one in protocols) / len(protocols)
                       for measure in found} for protocol, found in protocols[0].items()}


def difference(ours: dict, theirs: dict) -> dict:
    """Ours - theirs; a repaired protocol is held against the faithful one."""
    return {protocol: {measure: value - theirs["faithful" if protocol == "repaired" else protocol][measure]
                       for measure, value in found.items()} for protocol, found in ours.items()}


def same_loop(stored: dict, wanted: train.Settings) -> bool:
    """Whether a run was trained with these settings; one that it did not know had its default.

    What decides no number (how often it reports and saves, threads) may differ; the length is asked apart.
    """
    default = asdict(train.Settings())
    return all(stored.get(key, as_json(default[key])) == as_json(value)
               for key, value in asdict(wanted).items() if key not in train.NOT_IDENTITY)


def as_json(value):
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def read(path: Path) -> dict | None:
    """A JSON file, None where there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BadInput(f"{path} is no JSON file: {error}") from None


def say(found: dict) -> None:
    """The table as lines: clean posterior clustering and probe, or segmentation, with differences."""
    print(f"ablation of {found['preset']}, {found['steps']:,} steps (the preset's own length is "
          f"{found['full_steps']:,}), seeds {', '.join(map(str, found['seeds']))}")
    for row in found["rows"]:
        protocol = next(iter(row["protocols"]))
        shown = [f"{name} {row['protocols'][protocol][name]:.3f}"
                 + (f" ({row['difference'][protocol][name]:+.3f})" if row["difference"] else "")
                 for name in (*IMAGES, *POINTS) if name in row["protocols"][protocol]]
        print(f"  {row['row']:26s} {protocol:9s} {'  '.join(shown)}")
    for line in found["left_out"]:
        print(f"  left out: {line}")


def command(part: Annotated[str, typer.Option("--section", help="Of the params file, as ablation_small.")] = "ablation",
            row: Annotated[str | None, typer.Option(
                "--row", "--only", help="One row of the section's changes.")] = None,
            unless_done: Annotated[bool, typer.Option(
                "--unless-done", help="With --row: leave it alone where it was run with these settings.")] = False,
            seed: Seed = 0,
            every: Annotated[bool, typer.Option(
                "--all", help="Every row and seed, those that are there left alone.")] = False,
            tabulate: Annotated[bool, typer.Option("--table", help="Put the rows side by side.")] = False,
            names: Annotated[bool, typer.Option("--list", help="Print the names of the rows.")] = False,
            steps: Annotated[int | None, typer.Option(help="Updates; default: of the section.")] = None,
            preset: Annotated[str | None, typer.Option(
                help="The preset that is changed; default: of the section.")] = None,
            device: Device = None, params: Params = "params.yaml", results: Results = "results") -> None:
    """One setting changed at a time, everything else as in a preset."""
    wanted = section(params, steps, preset, part)
    if not (row or every or tabulate or names):
        raise BadInput("give --row NAME, --all, --table or --list")
    if names:
        print("\n".join(wanted.rows or []))
    if row and not (unless_done and is_done(wanted, row, seed, results, params)):
        print(run(wanted, row, seed, results, params, device))
    if every:
        run_all(wanted, results, params, device)
    if tabulate or every:
        found = table(wanted, results, params)
        write_json(Path(results) / f"{wanted.folder}_table" / "metrics.json", found)
        say(found)


main = Program("python -m pipelines.ablation", command)


def is_done(wanted: Ablation, name: str, seed: int, results: str | os.PathLike, params: str | os.PathLike) -> bool:
    """Whether a row was run with this seed and these settings."""
    return bool(finished(replace(wanted, seeds=[seed]), name, results, params)[0])


def run_all(wanted: Ablation, results: str | os.PathLike, params: str | os.PathLike,
            device: str | None = None) -> None:
    """Every row and seed that is not there yet with these settings."""
    for name in wanted.rows or []:
        for seed in wanted.seeds or []:
            metrics = read(settings.folder_of(wanted.folder, name, seed, results) / "metrics.json")
            row = wanted.row(name)
            if metrics is None or (metrics["steps"], metrics["set"], metrics["preset"]) != (
                    wanted.steps, [str(change) for change in row.set or []], row.preset or wanted.preset):
                run(wanted, name, seed, results, params, device)


if __name__ == "__main__":
    raise SystemExit(main())
