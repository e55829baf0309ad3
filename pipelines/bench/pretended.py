"""`scae bench --device pretended`: what a training step of each preset asks of a GPU, without one.

Every update is captured on the device of `port.training.pretended`, so the table also says that it can be.
Operations are launches where nothing is compiled, save that one on a list of tensors may be a few; bytes
are what they read and write. A compiler does with less of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import port
from pipelines import train as stage
from pipelines.bench.data import dataset
from pipelines.support import settings
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed, load_params
from port.training import loop as train
from port.training import precision, pretended
from port.training.rungs import RungFailed


@dataclass(frozen=True)
class Count:
    """A step on the pretended GPU.

    Attributes:
        operations: on the device, views left out.
        bytes: read and written by them, if nothing is fused.
        largest: the operations that come most often, with their number.
    """

    operations: int
    bytes: int
    largest: dict[str, int]


def count(preset: settings.Preset, **changed) -> Count:
    """Capture one update of a preset on the pretended GPU.

    Args:
        preset: model, data and settings.
        changed: settings of the training in place of the preset's.

    Raises:
        RungFailed: it cannot be captured; says why.
    """
    wanted = replace(stage.without_epochs(preset).train(0)[0], compile=False, capture="always",
                     rung="auto", **changed)
    with pretended.gpu() as graphs:
        model = port.build(preset.config(), seed=0).to("cuda")
        with precision.mode(wanted, "cuda"), precision.mixed(model, wanted):
            run = train.Run(model, dataset(preset, wanted.batch_size, "cuda"), wanted)
            run.step(run.state.batches.next_index(), wanted.lr)
    watch = graphs[0].watch
    return Count(watch.operations, watch.bytes, dict(watch.launched.most_common(5)))


def run(names: Sequence[str] | None = None, params: str = "params.yaml", path: str | None = None
        ) -> dict[str, Count]:
    """Count a step of each preset of a file, or of those named; print a table, write JSON where asked to.

    Raises:
        BadInput: an unknown preset, or no folder for the JSON file.
        CheckFailed: a step cannot be captured; says why.
    """
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise BadInput(f"--json {path}: there is no folder {Path(path).resolve().parent}")
    found: dict[str, Count] = {}
    for name in names or load_params(params)["presets"]:
        try:
            found[name] = count(settings.load_preset(name, None, params))
        except RungFailed as error:
            raise CheckFailed(f"preset {name}: {error.__cause__}") from None
    print(table(found))
    if path is not None:
        write(found, Path(path))
        print(f"bench: numbers in {path}")
    return found


def table(found: dict[str, Count]) -> str:
    """For a terminal."""
    lines = [f"{'preset':28}{'operations':>12}{'MB':>12}  the most frequent"]
    for name, one in found.items():
        often = ", ".join(f"{n} {operation.removeprefix('aten.')}" for operation, n in
                          list(one.largest.items())[:3])
        lines.append(f"{name:28}{one.operations:12,}{one.bytes / 1e6:12,.0f}  {often}")
    return "\n".join(lines)


def write(found: dict[str, Count], path: Path) -> None:
    """The counts that a test compares with."""
    plain = {name: {"operations": one.operations, "bytes": one.bytes} for name, one in found.items()}
    write_json(path, plain)
