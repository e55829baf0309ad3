"""Training on a GPU in a process of its own, a rung lower after each failure.

A failed capture ends the process that tried it (see `port.training.rungs`), so the one that started it
never touches the GPU: it starts the train stage on the highest rung, and on the next one when that ends
with the code for it. The stage finds its checkpoints again, so a run that was continued stays one.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.support import children, console, settings
from port.training import distributed, rungs
from port.training.schedule import Settings

STAGE = (sys.executable, "-m", "pipelines.train")


def wanted(loop: Settings, device: str) -> list[rungs.Rung]:
    """The rungs to try in fresh processes; none where this process trains itself."""
    found = rungs.ladder(loop, device)
    alone = distributed.launched_size() == 1
    return found if len(found) > 1 and found[0].captured and alone else []


def run(preset: settings.Preset, seeds: Sequence[int], ladder: Sequence[rungs.Rung],
        results: str | os.PathLike, device: str | None = None, wandb: str | None = None,
        runs: Path | None = None) -> None:
    """Train on the first of the rungs that works.

    Args:
        preset: with its overrides.
        seeds: one, or several at once.
        ladder: the rungs, highest first.
        results: folder.
        device: as given to the stage.
        wandb: as given to the stage.
        runs: folder of the checkpoints, kept where given.

    Raises:
        Ended: the last process did not end with 0; it has said why.
    """
    with tempfile.TemporaryDirectory(prefix="rungs-") as folder:
        params, notes = Path(folder) / "params.json", Path(folder) / "notes.txt"
        preset.write(params)
        command = [*STAGE, "--preset", preset.name, "--params", str(params), "--notes", str(notes),
                   "--results", str(results), *(["--device", device] if device else []),
                   *(["--wandb", wandb] if wandb else []), *(["--runs", str(runs)] if runs else []),
                   *(["--seed", str(seeds[0])] if len(seeds) == 1 else ["--seeds", *map(str, seeds)])]
        for rung, lower in zip(ladder, [*ladder[1:], None]):
            code = followed([*command, "--set", f"train.rung={rung.name}"])
            if code != console.RUNG_FAILED or lower is None:
                break
            print(f"train: beginning again in a fresh process, on rung {lower.name}", flush=True)
    if code:
        raise console.Ended(code)


def followed(command: Sequence[str]) -> int:
    """The exit code of a process that is handed SIGTERM on; Ctrl-C reaches it by itself."""
    process = children.start(command)
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, lambda number, frame:
                                            process.send_signal(number)),
              signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process.poll() is None:
            process.kill()
    return code if code >= 0 else 128 - code


def add_note(path: Path, line: str) -> None:
    """One line more about what was tried before."""
    with open(path, "a", encoding="utf-8") as file:
        print(line, file=file)


def notes(path: Path | None) -> list[str]:
    """What was tried before; the empty list where nothing was."""
    return path.read_text(encoding="utf-8").splitlines() if path is not None and path.exists() else []
