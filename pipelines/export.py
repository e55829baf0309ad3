"""Command `scae export`: a trained model as a file for other programs, compared with the model; or as a folder.

    scae export results/train/digits/0 digits.pt2
    scae export results/train/digits/0 digits.onnx
    scae export results/train/digits/0 digits-model --format folder --license mit

The file takes any number of examples (`port.checkpoints.export`). It is read back and run on random ones, which is the
proof that its numbers are the model's; a file that says something else is not left behind.

The folder is what model hubs take: weights, configuration, and a card with the accuracies that `scae evaluate`
measured of these weights. They are put in here and not by the stage `evaluate`, since the card in the folder of a run
belongs to the stage `train`: DVC would take the run for changed.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipelines.support import boundary, settings
from pipelines.support.values import BadInput, CheckFailed, file_to_write
from port.checkpoints import evaluations, export, model_card, model_folder, run_folder
from port.core import files
from port.families import Model

FORMATS = {".pt2": "pt2", ".onnx": "onnx"}
FOLDER = "folder"
BATCHES = (1, 2, 5)
# Loggers that warn of what is none of a reader's business; the second one, of a Triton that is not installed.
CHATTER = ("torch.onnx", "torch.utils.flop_counter")
NEEDED = ("onnx", "onnxscript")

Answers = Callable[[torch.Tensor], dict[str, np.ndarray]]


def run(folder: str | os.PathLike, out: str | os.PathLike, kind: str | None = None,
        license: str | None = None) -> dict[str, float]:
    """Write the file and compare it, or write the folder.

    Args:
        folder: of a run or a model.
        out: the file or the folder.
        kind: `pt2`, `onnx` or `folder`; None is what the file's name says.
        license: of the weights, for the card of a folder; None is that nobody stated it.

    Returns:
        The largest share of its bound that each output's difference takes; empty where nothing could be
        compared.

    Raises:
        BadInput: no model, an unknown kind, a missing package, or a file that cannot be written.
        CheckFailed: the file says something else than the model; it is removed.
    """
    out = Path(out)
    kind = kind or FORMATS.get(out.suffix)
    if kind == FOLDER:
        hand_on(folder, out, license or model_card.UNKNOWN)
        return {}
    if kind not in FORMATS.values():
        raise BadInput(f"{out}: end its name with {' or '.join(FORMATS)}, or give --format "
                       f"{', '.join(FORMATS.values())} or {FOLDER}")
    if license is not None:
        raise BadInput(f"--license stands in the card of a folder, and a {kind} file has none: leave it out, or "
                       f"give --format {FOLDER}")
    missing = [name for name in NEEDED if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise BadInput(f"writing ONNX needs {' and '.join(missing)}; install the extra `export` "
                       "(onnx, onnxscript, onnxruntime), or write a .pt2")
    file_to_write(out, "OUT")
    model = settings.load_model(folder).cpu()
    try:
        with files.whole(out, out.suffix if out.suffix in FORMATS else f".{kind}") as temporary:
            _write(model, temporary, kind)
            size, answers = os.path.getsize(temporary), _reader(temporary, kind)
            shares = {} if answers is None else compare(model, answers)
            wrong = [f"{name} by {share:.3g} times its bound" for name, share in shares.items()
                     if not share <= 1]
            if wrong:
                raise CheckFailed(f"{out.name} says something else than the model: {', '.join(wrong)}; "
                                  "it is not left behind")
    except OSError as error:
        raise BadInput(boundary.of_the_system(error)) from None
    print(f"export: {out}, {size:,} bytes; gives "
          f"{', '.join(export.Outputs(model)(export.example(model, 1)))}")
    print(f"export: compared with the model for {', '.join(map(str, BATCHES))} examples: at most "
          f"{max(shares.values()):.2g} of the bound" if shares else
          "export: not compared, onnxruntime is not installed (extra `export`)")
    return shares


def hand_on(folder: str | os.PathLike, out: Path, license: str) -> None:
    """A run's model as a new folder, with everything that was measured of it in the card: all of it, or nothing.

    Args:
        folder: of a run or a model.
        out: a folder that is not there, or an empty one.
        license: of the weights.

    Raises:
        BadInput: no model, a licence that is none, or something is there already.
    """
    try:
        model_card.check_license(license)
    except ValueError as error:
        raise BadInput(f"--license: {error}") from None
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise BadInput(f"{out} is there already; name a new folder")
    model = settings.load_model(folder)
    try:
        run = run_folder.located(folder)
        run = run.parent if run.name == run_folder.MODEL else run
        if not run_folder.is_run(run):
            raise BadInput(f"{folder} is the folder of a model and not of a run, and can be handed on as it is")
        told, accuracies = run_folder.settings_of(run), evaluations.of_run(run)
        held_out = {name: value for name, value in run_folder.measured(run).items()
                    if name.startswith(run_folder.HELD_OUT)}
        note = f"Preset `{told.get('preset')}`, seed {told.get('train', {}).get('seed')}, trained by this project."
        model_folder.save(model, out, note, license=license, metrics=held_out, evaluations=accuracies)
    except OSError as error:
        raise BadInput(boundary.of_the_system(error)) from None
    except ValueError as error:
        raise BadInput(str(error)) from None
    n = sum(len(one.accuracies) for one in accuracies)
    print(f"export: {out}, with {n} accuracies of {len(accuracies)} evaluations in its card" if n else
          f"export: {out}; nothing was evaluated of these weights, so that the card has no accuracies "
          "(scae evaluate)")


def _write(model: Model, path: Path, kind: str) -> None:
    """The file, without the exporters' own chatter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = {name: logging.getLogger(name).level for name in CHATTER}
        for name in CHATTER:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            made = export.program(model)
            if kind == "onnx":
                export.save_onnx(made, path)
            else:
                # Into memory first: where the disk is full, torch's own writer ends the whole process.
                content = io.BytesIO()
                torch.export.save(made, content)
                path.write_bytes(content.getbuffer())
        except export.ExportError as error:
            raise BadInput(str(error)) from None
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _reader(path: Path, kind: str) -> Answers | None:
    """What the file says, by its own runtime; None where that is not installed."""
    if kind == "pt2":
        module = torch.export.load(path).module()

        def traced(given: torch.Tensor) -> dict[str, np.ndarray]:
            with torch.no_grad():
                return {name: value.numpy() for name, value in module(given).items()}
        return traced
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]

    def answered(given: torch.Tensor) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {session.get_inputs()[0].name: given.numpy()}),
                        strict=True))
    return answered


def compare(model: Model, answers: Answers) -> dict[str, float]:
    """How far a file's answers are from the model's, as a share of a bound; above 1 is another function.

    The bound of an output is 8 e + 64 u m: e the model's own rounding, max |float32 - float64| over all
    examples, m = max |float64|, u = 2⁻²⁴. Another order of the same operations errs like the one that was
    measured; 8 is for how much the largest of few errors varies, the second term for outputs whose
    measured error is 0 by chance. Whole numbers (which capsule wins) must be equal.

    Args:
        model: in float32, on the CPU.
        answers: of the file.
    """
    exact = copy.deepcopy(model).double()
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {}
    for batch in BATCHES:
        given = export.example(model, batch, seed=batch)
        with torch.no_grad():
            single, double = export.Outputs(model)(given), export.Outputs(exact)(given.double())
        found = answers(given)
        if found.keys() != single.keys():
            raise CheckFailed(f"the file gives {', '.join(found)}, the model {', '.join(single)}")
        for name, value in single.items():
            if found[name].shape != tuple(value.shape):
                raise CheckFailed(f"{name}: of shape {list(found[name].shape)} in the file, "
                                  f"{list(value.shape)} in the model, for {batch} examples")
            rows.setdefault(name, []).append((found[name].ravel(), value.numpy().ravel(),
                                              double[name].numpy().ravel()))
    shares = {}
    for name, parts in rows.items():
        found, single, double = (np.concatenate(each) for each in zip(*parts, strict=True))
        if not np.issubdtype(found.dtype, np.floating):
            shares[name] = 0.0 if np.array_equal(found, single) else np.inf
            continue
        bound = 8 * np.abs(single - double).max() + 64 * 2.0**-24 * np.abs(double).max()
        worst = np.abs(found - double).max()
        shares[name] = float(worst / bound) if bound else float(0 if worst == 0 else np.inf)
    return shares
