"""The command line `scae`. How commands are declared: `pipelines.support.command_line`; exit codes and one-line
errors: `pipelines.support.console`.

Commands import what they need when they run, so that `scae --help` is quick and TensorFlow is
loaded only by commands that use the reference.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pipelines.commands import train as train_command
from pipelines.support.command_line import (
    Device,
    Params,
    Preset,
    Program,
    Results,
    ResultsOfRun,
    Seed,
    Set,
    application,
    to_write,
)
from pipelines.support.values import BadInput

app = application("Stacked Capsule Autoencoders: train, evaluate, look.")

FamilyName = Annotated[str | None, typer.Option(
    "--model", metavar="NAME", help="capsnet or em, in place of --preset: that model's preset.")]
Dataset = Annotated[str | None, typer.Option(
    metavar="SOURCE", help="With --model, its preset for this data source, as svhn or smallnorb.")]
app.command()(train_command.train)


@app.command()
def evaluate(preset: Preset = "digits", model: FamilyName = None, dataset: Dataset = None,
             seed: Seed = 0, overrides: Set = None,
             on: Annotated[str | None, typer.Option(
                 metavar="SOURCE", help="Test on this data source instead, as affnist; or on `validation`, the images "
                 "that the run kept out of its training.")] = None,
             device: Device = None, params: Params = "params.yaml",
             results: Results = "results") -> None:
    """Accuracy of a trained preset at step 0 and at the end, beside raw pixels."""
    from pipelines import evaluate as stage
    from pipelines import families
    from pipelines.support import settings

    preset = families.preset_of(preset, model, dataset)
    stage.run(settings.load_preset(preset, overrides, params), seed, results, device, on)


@app.command()
def reconstruct(run: Annotated[str | None, typer.Argument(
                    metavar="[RUN]", help="Folder of a run, as results/train/digits/0; it says preset, "
                    "data and seed.")] = None,
                preset: Preset = "digits", seed: Seed = 0, overrides: Set = None,
                model: Annotated[str | None, typer.Option(
                    metavar="DIR", help="Folder of a model; default: the trained one.")] = None,
                images: Annotated[str, typer.Option(
                    metavar="FILE|DIR|N", help="How many test images, or a file or folder of images "
                    "(.npy, .npz, .png, …).")] = "16",
                out: Annotated[str | None, typer.Option(
                    metavar="DIR", help="Folder of the pictures; default: reconstruct/<preset>/<seed> in "
                    "the results.")] = None,
                device: Device = None, params: Params = "params.yaml",
                results: ResultsOfRun = None) -> None:
    """Pictures: reconstructions, templates, parts in place, which capsule explains which part."""
    from pipelines.commands import reconstruct as command
    from pipelines.support import settings

    if run is not None:
        if model or overrides:
            raise BadInput("RUN says its own settings: leave --model and --set out")
        paths = command.of_run(run, results, images, device, out)
    else:
        paths = command.run(settings.load_preset(preset, overrides, params), seed, results or settings.RESULTS, model,
                            images, device, out)
    for path in paths:
        print(path)


@app.command()
def export(run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run or a model.")],
           out: Annotated[str, typer.Argument(metavar="OUT", help="The file to write, .pt2 or .onnx, or the folder.")],
           kind: Annotated[str | None, typer.Option(
               "--format", metavar="pt2|onnx|folder", help="In place of what the file's name says; folder is what "
               "model hubs take, with the measured accuracies in its card.")] = None,
           weights_license: Annotated[str | None, typer.Option(
               "--license", metavar="NAME", help="With --format folder: licence of the weights, as apache-2.0.")] = None
           ) -> None:
    """A trained model as a file for other programs, compared with the model, or as a folder to hand on."""
    from pipelines import export as command

    command.run(run, out, kind, weights_license)


@app.command()
def equivariance(run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run.")],
                 device: Device = None, params: Params = "params.yaml",
                 results: ResultsOfRun = None) -> None:
    """Whether part poses move with the image: error in pixels under shifts and turns."""
    from pipelines import equivariance as command
    from pipelines.support import sections

    wanted = sections.section(sections.Equivariance, "equivariance", params, optional=True)
    command.run(run, wanted, results, device)


@app.command()
def report(runs: Annotated[list[str] | None, typer.Argument(
               metavar="[RUN]…", help="Folders of runs: put them side by side instead.")] = None,
           params: Params = "params.yaml", results: Results = "results",
           presets: Annotated[list[str] | None, typer.Option(
               metavar="NAME", help="Over the aggregates of this preset instead, or `all`; may be "
               "repeated.")] = None,
           out: Annotated[str | None, typer.Option(
               metavar="FILE", help="The page; default: report.html in the results, paper.html with "
               "--presets, runs.html with RUN.", callback=to_write)] = None,
           diff: Annotated[tuple[str, str] | None, typer.Option(
               metavar="A B", help="Print what differs between two parity JSONs, or two runs; ends with 1 "
               "if a parity of B got worse past its bound.")] = None) -> None:
    """One self-contained page of everything that was measured, or of some runs."""
    from pipelines import report as stage
    from pipelines.results import differences, paper_report, run_report
    from pipelines.support import sections

    if bool(runs) + bool(presets) + (diff is not None) > 1:
        raise BadInput("give one of RUN…, --presets and --diff")
    if diff is not None:
        differences.run(*diff)
        return
    if runs:
        path = run_report.run(runs, results, out)
    elif presets:
        path = paper_report.run(presets, results, out)
    else:
        path = stage.run(sections.section(sections.Report, "report", params), results, out)
    print(f"Report: {path}")


@app.command()
def aggregate(preset: Preset = "digits", on: Annotated[str | None, typer.Option(
                  metavar="SOURCE", help="Results of `evaluate --on SOURCE`.")] = None,
              overrides: Set = None, params: Params = "params.yaml",
              results: Results = "results") -> None:
    """Mean, interval and verdict over the seeds of a preset."""
    from pipelines import aggregate as stage
    from pipelines.support import settings

    stage.run(settings.load_preset(preset, overrides, params), results, on)


@app.command()
def add(runs: Annotated[list[str], typer.Argument(
            metavar="RUN…", help="Folders of finished runs, as runs/mnist_small/1; they are only read.")],
        replace: Annotated[bool, typer.Option(
            "--replace", help="In place of another run of preset and seed.")] = False,
        measure: Annotated[bool, typer.Option(
            "--evaluate/--no-evaluate", help="Evaluate and aggregate, too.")] = True,
        params: Params = "params.yaml", results: Results = "results") -> None:
    """Finished runs that were trained elsewhere, as results here: evaluated and aggregated."""
    from pipelines.commands import add as command

    command.run(runs, results, replace, measure, params)


Checkpoint = Annotated[str, typer.Argument(
    metavar="CKPT", help="TensorFlow checkpoint: its prefix, or its folder.")]
JsonFile = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write the result as JSON.",
                                               callback=to_write)]
SomePreset = Annotated[str | None, typer.Option(
    help="A preset of params.yaml that the checkpoint was trained with.")]
ModelFile = Annotated[str | None, typer.Option(
    "--config", metavar="FILE", help="JSON or YAML file of what the checkpoint does not tell, or a "
    "recording's manifest; overlays the preset.")]


Skip = Annotated[list[str] | None, typer.Option(
    "--skip", metavar="PATTERN", help="Leave arrays of these names out, as 'learning_rate' or '*/Adam*'; "
    "may be repeated.")]
Rename = Annotated[list[str] | None, typer.Option(
    "--rename", metavar="OLD=NEW", help="Another name for an array or a scope, as model/= for none; may be "
    "repeated.")]
Averages = Annotated[bool, typer.Option(
    "--averages", help="Take the moving averages of the weights for the weights.")]


@app.command()
def inspect(checkpoint: Checkpoint, json_file: JsonFile = None, skip: Skip = None, rename: Rename = None,
            averages: Averages = False) -> None:
    """What is in an original checkpoint: variables, architecture, what will be skipped."""
    from pipelines.commands import inspect as command
    from port.checkpoints.strangers import Choices

    command.run(checkpoint, json_file, Choices(skip or (), rename or (), averages))


@app.command()
def convert(source: Annotated[str, typer.Argument(
                metavar="CKPT", help="TensorFlow checkpoint; with --to tf a converted folder.")],
            out: Annotated[str, typer.Argument(
                metavar="OUT", help="Folder to write; with --to tf a checkpoint's prefix.")],
            preset: SomePreset = None, config: ModelFile = None,
            to: Annotated[str, typer.Option(metavar="torch|tf", help="Which way.")] = "torch",
            dry_run: Annotated[bool, typer.Option(
                "--dry-run", help="Print what becomes of every variable; write nothing.")] = False,
            no_verify: Annotated[bool, typer.Option(
                "--no-verify", help="Skip the proof; the result is marked unverified.")] = False,
            allow_nonfinite: Annotated[bool, typer.Option(
                "--allow-nonfinite", help="Convert NaN and infinities as they are.")] = False,
            overwrite: Annotated[bool, typer.Option(
                "--overwrite", help="Replace another model that OUT holds.")] = False,
            skip: Skip = None, rename: Rename = None, averages: Averages = False,
            weights_license: Annotated[str, typer.Option(
                "--license", metavar="NAME", help="Licence of the weights for the model card, as apache-2.0."
                )] = "unknown",
            params: Params = "params.yaml") -> None:
    """An original checkpoint to PyTorch and proven equal, or back."""
    from pipelines import convert as command
    from port.checkpoints.strangers import Choices

    command.run(source, out, preset, config, to, dry_run, not no_verify, allow_nonfinite, params,
                Choices(skip or (), rename or (), averages), overwrite, weights_license)


@app.command()
def verify(checkpoint: Annotated[str | None, typer.Argument(
               metavar="[CKPT]", help="TensorFlow checkpoint: its prefix, or its folder.")] = None,
           out: Annotated[str | None, typer.Argument(metavar="[OUT]", help="The converted folder.")] = None,
           golden: Annotated[str | None, typer.Option(
               metavar="DIR", help="A recording to hold both sides to; without CKPT and OUT a folder of "
               "records of single functions, as of CapsNet.")] = None,
           json_file: JsonFile = None,
           html_file: Annotated[str | None, typer.Option(
               "--html", metavar="FILE", help="Write the table as one page.", callback=to_write)] = None) -> None:
    """A converted folder against its checkpoint, or both against a recording, tap by tap."""
    if checkpoint is None and golden is not None:
        from pipelines.commands import records

        records.run(golden, json_file, html_file)
        return
    if checkpoint is None or out is None:
        raise BadInput("verify takes CKPT and OUT, or --golden DIR alone for a folder of records")
    from pipelines.commands import verify as command

    command.run(checkpoint, out, golden, json_file, html_file)


@app.command()
def record(checkpoint: Checkpoint,
           out: Annotated[str, typer.Argument(metavar="DIR", help="The folder of recordings to write.")],
           batch: Annotated[str | None, typer.Option(
               metavar="FILE", help="A .npz with image [n, B, S, S, C] and label; random by default."
               )] = None,
           dtype: Annotated[str, typer.Option(metavar="float64|float32", help="Precision.")] = "float64",
           preset: SomePreset = None, config: ModelFile = None, seed: Seed = 0, skip: Skip = None,
           rename: Rename = None, averages: Averages = False, params: Params = "params.yaml") -> None:
    """Recordings of a checkpoint, made by the reference: what verify and pytest hold a port to."""
    from pipelines.commands import record as command
    from port.checkpoints.strangers import Choices

    command.run(checkpoint, out, batch, dtype, preset, config, seed, params,
                Choices(skip or (), rename or (), averages))


@app.command()
def bench(preset: Annotated[str | None, typer.Option(
              help="A preset of params.yaml; default mnist, on the pretended device all of them.")] = None,
          model: FamilyName = None,
          batch_size: Annotated[int | None, typer.Option(
              help="Images a step; default the preset's, with --model 64.")] = None,
          repeats: Annotated[int, typer.Option(help="Rounds; the fastest counts.")] = 10,
          threads: Annotated[int, typer.Option(help="Threads of the CPU; 0 for all cores.")] = 0,
          device: Annotated[str, typer.Option(
              help="cpu or cuda, of the port; pretended counts what a step asks of a GPU, without one."
              )] = "cpu",
          plain: Annotated[bool, typer.Option(help="Time the port without its kernels too.")] = True,
          floors: Annotated[bool, typer.Option(
              "--floors", help="Also what memory, arithmetic and launches allow at best, and where the "
              "time goes.")] = False,
          json_file: Annotated[str | None, typer.Option(
              "--json", metavar="FILE", help="Where the numbers go.", callback=to_write)] = None,
          diff: Annotated[tuple[str, str] | None, typer.Option(
              metavar="FILE FILE", help="Measure nothing: compare what two calls left with --json.")] = None,
          params: Params = "params.yaml") -> None:
    """Seconds per training step and forward pass: port, reference, and the convolutions alone."""
    from pipelines import families
    from pipelines.bench import training_step as command

    if diff is not None:
        from pipelines.bench import difference
        difference.run(*diff)
        return
    if model is not None:
        if (preset, device, floors) != (None, "cpu", False):
            raise BadInput("bench --model takes --batch-size, --repeats, --threads and --json "
                           "alone")
        families.bench(model, 64 if batch_size is None else batch_size, repeats, threads, json_file)
        return
    if device == "pretended":
        from pipelines.bench import pretended as bench_pretended
        if batch_size is not None or floors:
            raise BadInput("bench --device pretended takes --preset, --params and --json alone: it counts "
                           "a step at the preset's own batch size")
        bench_pretended.run([preset] if preset else None, params, json_file)
        return
    command.run(command.Options(preset or "mnist", params, batch_size, repeats, threads, device, plain,
                                floors), json_file)


main = Program("scae", app)

if __name__ == "__main__":
    raise SystemExit(main())
