"""A model as a folder: `model.safetensors`, `config.json`, a model card, optimizer slots. No pickle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from port.checkpoints import contents, model_card, run_folder
from port.checkpoints.evaluations import Evaluation
from port.checkpoints.tensor_bundle.errors import CheckpointError, printable
from port.config import ConfigError, from_arguments
from port.core import swap, tensor_files
from port.families import Model, build
from port.training import optimizers, resume

Slots = Mapping[str, Mapping[str, Tensor]]

# Slots of each optimizer whose state comes with a checkpoint of the original's.
OPTIMIZERS = {"RMSProp": ("ms", "mom"), "Adam": ("m", "v")}
ORIGINAL = [frozenset(names) for names in OPTIMIZERS.values()]
STEP = "global_step"
# Of weights. Measurements are made in float32 (`pipelines.support.settings.load_model`).
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
FILES = ("model.safetensors", "config.json", "README.md", "optimizer.safetensors", "optimizer-?????.safetensors")


def save(model: Model, folder: str | Path, note: str = "", slots: Slots | None = None,
         step: int | None = None, metadata: Mapping[str, str] | None = None,
         license: str = model_card.UNKNOWN, metrics: Mapping[str, float] | None = None,
         evaluations: Sequence[Evaluation] = ()) -> Path:
    """Write a model folder: all of it, or nothing.

    Args:
        model: the model.
        folder: made anew; of an existing one other files stay.
        note: text for the model card.
        slots: RMSProp slots by parameter name, as `load_slots` gives them.
        step: updates made so far.
        metadata: kept in `model.safetensors`.
        license: of the weights, for the model card.
        metrics: for the model card, what was measured.
        evaluations: for the model card, accuracies on test images.

    Returns:
        The folder.
    """
    folder = Path(folder)
    with swap.swapped(folder, FILES) as made:
        write_files(made, model, note, slots, step, metadata, license, metrics, evaluations)
    return folder


def write_files(folder: Path, model: Model, note: str = "", slots: Slots | None = None,
                step: int | None = None, metadata: Mapping[str, str] | None = None,
                license: str = model_card.UNKNOWN, metrics: Mapping[str, float] | None = None,
                evaluations: Sequence[Evaluation] = ()) -> None:
    """The files of `save` in a folder that exists."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    kept = {"format": "pt", **(metadata or {})}
    if step is not None:
        kept[STEP] = str(step)
    tensor_files.write(state, folder / "model.safetensors", kept)
    (folder / "config.json").write_text(model.config.to_json() + "\n", encoding="utf-8")
    (folder / "README.md").write_text(model_card.text(model, note, license, metrics, evaluations), encoding="utf-8")
    if slots:
        optimizer = optimizer_of(next(iter(slots.values())))
        tensors = {f"{name}/{slot}": values[slot].detach().cpu().contiguous()
                   for name, values in slots.items() for slot in OPTIMIZERS[optimizer]}
        if step is not None:
            tensors[STEP] = torch.tensor(step, dtype=torch.int64)
        tensor_files.write(tensors, folder / "optimizer.safetensors", {"format": "pt", "optimizer": optimizer})


def optimizer_of(slots: Collection[str]) -> str:
    """The optimizer that has these slots, of `OPTIMIZERS`."""
    return next(name for name, known in OPTIMIZERS.items() if set(known) & set(slots))


def load(folder: str | Path) -> Model:
    """A model from its folder, in eval mode, with the `preprocessing` of its data.

    Args:
        folder: as `save` writes it, or a run's, with the model in its folder `model`, or one that holds
            a single run. A run tells the data source and shifts too (`port.run_folder.Preprocessing`).

    Raises:
        CheckpointError: a file is missing, damaged or of another run, or weights and configuration differ.
    """
    settings = None
    try:
        folder = run_folder.located(folder)
        if run_folder.is_run(folder):
            run_folder.check_whole(folder)
            settings = run_folder.settings_of(folder)
            folder = folder / run_folder.MODEL
        elif folder.name == run_folder.MODEL:  # of a run, perhaps
            run_folder.check_whole(folder.parent)
    except ValueError as error:
        raise CheckpointError(str(error)) from error
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}; expected a folder of port.save, or a run's")
    try:
        arguments = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(arguments, dict):
            raise ConfigError("config.json holds no sections")
        config = from_arguments(arguments)
        state = load_file(folder / "model.safetensors")
    except (ConfigError, ValueError, safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder}: cannot be read ({error})") from error
    model = build(config).to(_dtype(state, folder / "model.safetensors"))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: weights do not fit config.json: "
                              f"{' '.join(str(error).split())}") from error
    try:
        model.preprocessing = run_folder.preprocessing(config, settings)
    except ValueError as error:
        raise CheckpointError(f"{folder.parent}: {error}") from error
    return model.eval()


def _dtype(state: Mapping[str, Tensor], path: Path) -> torch.dtype:
    """The one dtype of a model's weights.

    Raises:
        CheckpointError: there are several, or it is none that models compute in.
    """
    most = Counter(tensor.dtype for tensor in state.values()).most_common(1)[0][0] if state else torch.float32
    for name, tensor in state.items():
        if tensor.dtype not in DTYPES or tensor.dtype != most:
            among = "" if tensor.dtype == most else f", others are {_word(most)}"
            raise CheckpointError(f"{path}: {name} is {_word(tensor.dtype)}{among}; save all weights as one of "
                                  f"{', '.join(map(_word, DTYPES))}")
    return most


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load_metadata(folder: str | Path) -> dict[str, str]:
    """What `model.safetensors` says about itself: source, digest, tool, step."""
    path = Path(folder) / "model.safetensors"
    try:
        with safetensors.safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def load_slots(folder: str | Path, model: Model, names: frozenset[str] | None = None
               ) -> tuple[dict[str, dict[str, Tensor]], int | None]:
    """Optimizer slots by parameter name, and the step; without a file no slots.

    Args:
        folder: as `save` or a run writes it; the slots of a large model lie in several files.
        model: the folder's model; a slot has its parameter's shape.
        names: of the slots, as `slot_names` gives them; by default those of the original's optimizers.

    Raises:
        CheckpointError: a file is damaged or missing, or does not fit the model, or has other slots.
    """
    slots, _, step = _read_slots(folder, model, ORIGINAL if names is None else [names])
    return slots, step


def _read_slots(folder: str | Path, model: Model, known: Collection[frozenset[str]]
                ) -> tuple[dict[str, dict[str, Tensor]], dict[str, float], int | None]:
    """Slots and number of updates by parameter name, and the step; a parameter has all slots of one of `known`."""
    paths = slot_files(folder)
    if not paths:
        said = load_metadata(folder).get(STEP)
        if said is not None and not (said.isascii() and said.isdecimal() and len(said) < 19):
            raise CheckpointError(f"{Path(folder) / 'model.safetensors'}: {STEP} is {printable(repr(said))}; expected "
                                  "a whole number from 0 up")
        return {}, {}, None if said is None else int(said)
    path = paths[0] if len(paths) == 1 else Path(folder, "optimizer-….safetensors")
    try:
        tensors = resume.read_tensors(Path(folder), "optimizer", "cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    except (KeyError, RuntimeError):  # a tensor that is cut in pieces lacks its last one
        tensors = {}
    step = _step(tensors.pop(STEP, None), path)
    if len(paths) > 1 and step is None:  # a run writes it last
        raise CheckpointError(f"{path}: {paths[-1].name} is not the last of them; one is missing")
    parameters, slots, counts = dict(model.named_parameters()), {}, {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        if slot == "step" and name in parameters and not value.ndim:  # a rule's own count of the updates
            # Of float32; a number that is none or no whole one stays as it is, and is refused.
            counts[name] = float(_step(value.long() if value == value.round() else value, path) or 0)
            continue
        if name not in parameters or not any(slot in names for names in known) \
                or value.shape != parameters[name].shape or value.dtype not in DTYPES:
            raise CheckpointError(f"{path}: {key}, {_word(value.dtype)} {list(value.shape)}, is no slot of this model")
        slots.setdefault(name, {})[slot] = value
    half = [name for name, values in slots.items() if frozenset(values) not in known]
    if half:
        raise CheckpointError(f"{path}: {half[0]} has only one of its slots")
    if step is None and counts:  # one that no gradient ever reached may have counted none
        step = int(max(counts.values()))
    return slots, counts, step


def slot_names(folder: str | Path) -> frozenset[str]:
    """The slots that a folder has of its parameters, whichever optimizer's; none where it has no files of them.

    Raises:
        CheckpointError: a file is damaged or missing.
    """
    keys: list[str] = []
    for path in slot_files(folder):
        try:
            with safetensors.safe_open(path, "pt") as file:
                keys += [key.partition("#")[0] for key in file.keys()]  # noqa: SIM118, it is no mapping
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error})") from error
    return optimizers.names_of(key for key in keys if key != STEP)


def _step(step: Tensor | None, path: Path) -> int | None:
    """The number of updates that a file says, held to what one of the original may say.

    Raises:
        CheckpointError: it is no such number.
    """
    refused = "" if step is None else contents.step_refusal(step)
    if refused:
        raise CheckpointError(f"{path}: {refused}")
    return None if step is None else int(step)


def slot_files(folder: str | Path) -> list[Path]:
    """The files that hold a folder's optimizer slots, in order; none where it has no slots.

    Raises:
        CheckpointError: one of several is missing, or there is a whole one beside the parts of another.
    """
    whole = Path(folder) / "optimizer.safetensors"
    parts = sorted(whole.parent.glob("optimizer-?????.safetensors"))
    for number, path in enumerate(parts, 1):
        if path.name != f"optimizer-{number:05d}.safetensors":
            raise CheckpointError(f"{folder}: optimizer-{number:05d}.safetensors is missing, but {path.name} is there")
    if parts and whole.is_file():
        raise CheckpointError(f"{folder}: {whole.name} stands beside {parts[0].name}; remove what is not the model's")
    return parts or [whole] * whole.is_file()


@torch.no_grad()
def continue_from(folder: str | Path, model: Model, optimizer: torch.optim.Optimizer) -> int:
    """Put a folder's slots into an optimizer, so that training continues where it stopped.

    Args:
        folder: as `save` writes it, or a converted checkpoint.
        model: the folder's model.
        optimizer: over the model's parameters, as `port.training.optimizers.make` gives it: `port.optim.RMSProp`,
            for the routing ancestors `port.core.adam.Adam`, or another with the folder's slots. A parameter
            without slots in the folder (no gradient ever reached it) keeps its fresh ones.

    Returns:
        The number of updates made before; 0 where nobody recorded it.

    Raises:
        CheckpointError: the folder has no slots, or they do not fit.
    """
    known = [optimizers.names_of(resume.read_slots(model, optimizer))]
    slots, counts, step = _read_slots(folder, model, known)
    if not slots:
        raise CheckpointError(f"{folder}: no optimizer.safetensors, nor parts of one; training can start from these "
                              "weights, but not continue")
    for name, parameter in model.named_parameters():
        for slot, value in slots.get(name, {}).items():
            optimizer.state[parameter][slot].copy_(value)
        if "step" in optimizer.state[parameter]:  # the rule's own count of the updates
            optimizer.state[parameter]["step"].fill_(counts.get(name, step or 0))
    return step or 0
