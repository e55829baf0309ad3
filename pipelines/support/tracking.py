"""Learning curves while a run lasts: DVCLive where it is installed, Weights & Biases where asked for.

Weights & Biases is `none` unless the setting `train.wandb` or `--wandb` says otherwise. `offline` writes
a run folder that `wandb sync` can upload later; it asks for no key and opens no connection. Only
`online` uploads, and needs a key that is already there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.support.settings import WANDB
from pipelines.support.values import BadInput
from port.configuration.fields import unknown

Log = Callable[[dict[str, float]], None]


@contextlib.contextmanager
def curves(folder: Path, name: str, config: dict, resume: bool, wandb: str = "none",
           project: str = "scae", team: str | None = None) -> Iterator[Log]:
    """A function that logs a row of the history wherever it is wanted.

    Args:
        folder: of the run; `live/` and `wandb/` go below it.
        name: of the run: preset, seed and hash of the configuration.
        config: the resolved configuration.
        resume: the run continues.
        wandb: none, offline or online.
        project: of Weights & Biases.
        team: of Weights & Biases; None is the user's own.

    Raises:
        BadInput: another word, or `online` without a key.
    """
    with _dvclive(folder / "live", resume) as live, _wandb(
            folder, name, config, wandb, project, team) as web:
        def log(row: dict[str, float]) -> None:
            live(row)
            web(row)
        yield log


@contextlib.contextmanager
def _dvclive(folder: Path, resume: bool) -> Iterator[Log]:
    try:
        from dvclive import Live
    except ImportError:
        yield lambda row: None
        return
    # dvcyaml=None: it must not rewrite dvc.yaml; the stage, not DVCLive, belongs to DVC.
    with Live(str(folder), dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False,
              resume=resume) as logger:
        def log(row: dict[str, float]) -> None:
            logger.step = row["step"]
            for name, value in row.items():
                if name != "step":
                    logger.log_metric(name, value)
            logger.make_summary()
        yield log


@contextlib.contextmanager
def _wandb(folder: Path, name: str, config: dict, mode: str, project: str, team: str | None
           ) -> Iterator[Log]:
    if mode not in WANDB:
        raise BadInput(unknown("value of wandb", mode, WANDB))
    if mode == "none":
        yield lambda row: None
        return
    if mode == "offline":
        # Its own error reports and usage counts go out even so; it looks at this when it is imported.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
    try:
        import wandb
    except ImportError:
        print("wandb is not installed (pip install wandb); training without it", flush=True)
        yield lambda row: None
        return
    if mode == "online" and not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        raise BadInput("wandb: online needs a key; set WANDB_API_KEY or run `wandb login`, or use "
                       "offline and upload later with `wandb sync`")
    folder.mkdir(parents=True, exist_ok=True)
    # Given here, they win over the environment and the settings file of the user.
    quiet = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True,
                           x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True)
    run = wandb.init(mode=mode, dir=str(folder), project=project, entity=team, id=name, name=name,
                     config=config, resume="allow" if mode == "online" else None, reinit="create_new",
                     settings=quiet)
    failed = True
    try:
        yield lambda row: run.log({k: v for k, v in row.items() if k != "step"},
                                  step=int(row["step"]))
        failed = False
    finally:
        run.finish(exit_code=int(failed))
