"""Several seeds of one preset at once: processes side by side on a CPU, streams on a GPU.

Each seed leaves what it leaves alone, in its own folder. A process a seed gives the same bits as that
seed alone, and as many at a time run as there are cores for their threads. On a GPU the runs share a
process (`port.training.ensemble`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pipelines import train as stage
from pipelines.support import children, console, descent, settings
from pipelines.support.values import BadInput, CheckFailed
from port.training import distributed, ensemble
from port.training import loop as train


def run(preset: settings.Preset, seeds: list[int], results: str | os.PathLike = settings.RESULTS,
        device: str | None = None, wandb: str | None = None, notes: Sequence[str] = (),
        runs: Path | None = None) -> list[Path]:
    """Train a preset with several seeds; `notes` say what was tried before, `runs` keeps the checkpoints.

    Raises:
        BadInput: unknown settings, a seed given twice, or started by torchrun.
        RungFailed: the step cannot be made on the rung that the settings name.
        Ended: the process that trained them all ended so.
        CheckFailed: a seed failed; the others have finished.
        Interrupted: stopped by a signal; the states are saved.
    """
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"--seeds: one is given twice in {seeds}")
    if distributed.launched_size() > 1:
        raise BadInput("--seeds and torchrun do not go together; give each seed its own "
                       "torchrun, or leave torchrun out")
    for seed in seeds:  # all, before one trains for hours
        wanted, place = stage.check(stage.without_epochs(preset), seed, device)
    # Once, before the processes look for it.
    preset = stage.counted(preset, stage.dataset_for(preset, results))
    ladder = descent.wanted(wanted, place.type)
    if ladder:
        descent.run(preset, seeds, ladder, results, device, wandb, runs)
        return [settings.folder_of("train", preset.name, seed, results) for seed in seeds]
    if place.type == "cuda":
        return on_streams(preset, seeds, results, place, wandb, notes, runs)
    jobs, threads = shared_out(wanted, len(seeds))
    if threads != wanted.threads:
        print(f"train: {jobs} processes at a time with {threads} threads each, which is faster than one after the "
              "other with all; train.threads decides otherwise", flush=True)
        section = preset.sections["train"] | {"threads": threads}
        preset = replace(preset, sections=preset.sections | {"train": section})
    return in_processes(preset, seeds, results, device, wandb, jobs, runs)


def parse(text: str) -> list[int]:
    """`0,1,2` as numbers.

    Raises:
        BadInput: something else.
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise BadInput(f"--seeds {text}: write whole numbers with commas, as in 0,1,2") \
            from None


def shared_out(wanted: train.Settings, seeds: int) -> tuple[int, int]:
    """Processes at a time, and the threads of each.

    Where the settings leave the threads open, the cores are shared out among as many seeds as there are: on two
    cores two processes of one thread made 1.2 (mnist), 1.5 (mnist_small) and 1.4 (digits) times the steps of
    one process with two threads.

    Args:
        wanted: of each seed; `threads` 0 leaves them open.
        seeds: how many.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if wanted.threads or seeds == 1:
        return max(1, cores // max(1, wanted.threads)), wanted.threads
    jobs = min(cores, seeds)
    return jobs, cores // jobs


def in_processes(preset: settings.Preset, seeds: list[int], results: str | os.PathLike,
                 device: str | None, wandb: str | None, jobs: int, runs: Path | None = None) -> list[Path]:
    """One process a seed, `jobs` at a time; their lines come with the seed in front."""
    waiting, running, codes = list(seeds), {}, {}
    readers: list[threading.Thread] = []
    lost: list[OSError | ValueError] = []  # why nothing can be printed any more
    params = Path(tempfile.mkdtemp(prefix="seeds-")) / "params.json"
    preset.write(params)
    stop: list[int] = []
    before = {n: signal.signal(n, lambda number, frame: stop.append(number))
              for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        while waiting or running:
            while waiting and len(running) < jobs and not (stop or lost):
                seed = waiting.pop(0)
                running[seed] = start(preset, seed, params, results, device, wandb, runs)
                readers.append(threading.Thread(target=hand_on, args=(running[seed], seed, lost), daemon=True))
                readers[-1].start()
            for seed, process in list(running.items()):
                try:
                    codes[seed] = process.wait(timeout=0.2)
                    del running[seed]
                except subprocess.TimeoutExpired:
                    continue
            if (stop or lost) and running:
                for process in running.values():
                    process.send_signal(signal.SIGTERM)
                for seed, process in running.items():
                    codes[seed] = process.wait()
                running.clear()
            if stop or lost:
                break
        for reader in readers:  # the last lines; a grandchild that keeps the pipe open is not waited for
            reader.join(timeout=5)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in running.values():
            process.kill()
        shutil.rmtree(params.parent)
    if stop:
        raise train.Interrupted(stop[0])
    if lost:
        raise lost[0]
    failed = {seed: code for seed, code in codes.items() if code}
    if failed:
        raise CheckFailed("; ".join(f"seed {s} ended with {c}" for s, c in failed.items()))
    return [settings.folder_of("train", preset.name, seed, results) for seed in seeds]


def start(preset: settings.Preset, seed: int, params: Path, results: str | os.PathLike,
          device: str | None, wandb: str | None, runs: Path | None = None) -> subprocess.Popen:
    """A process that trains one seed; its lines are for `hand_on`."""
    command = [sys.executable, "-m", "pipelines.train", "--preset", preset.name, "--seed", str(seed),
               "--params", str(params), "--results", str(results),
               *(["--device", device] if device else []), *(["--wandb", wandb] if wandb else []),
               *(["--runs", str(runs)] if runs else [])]
    # A session of its own: Ctrl-C comes here alone, and from here to all.
    return children.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          encoding="utf-8", errors="backslashreplace", start_new_session=True)


def hand_on(process: subprocess.Popen, seed: int, lost: list[OSError | ValueError]) -> None:
    """Print the lines of a process until it ends, with its seed in front.

    Args:
        process: its output is read to the end in any case, since it would wait for a reader while it saves its state.
        seed: of the process.
        lost: gets the error where nothing can be printed any more: the reader of the output went away, or a full disk.
    """
    for line in process.stdout:
        if not lost:
            try:
                print(f"[seed {seed}] {line}", end="", flush=True)
            except (OSError, ValueError) as error:  # ValueError: the output is closed
                lost.append(error)


def on_streams(preset: settings.Preset, seeds: list[int], results: str | os.PathLike,
               place: torch.device, wandb: str | None, notes: Sequence[str] = (),
               runs: Path | None = None) -> list[Path]:
    """All seeds in this process, in turns."""
    mode = preset.wandb() if wandb is None else wandb
    dataset = stage.dataset_for(preset, results).to(place)
    jobs = [stage.Job.make(preset, seed, results, place, runs, dataset) for seed in seeds]
    with contextlib.ExitStack() as alone:
        for job in jobs:
            alone.enter_context(job.alone())
            job.begin(dataset)
        with contextlib.ExitStack() as stack:
            bar = stack.enter_context(console.progress(jobs[0].wanted.steps, f"train {len(jobs)} seeds"))
            together = []
            for job in jobs:
                log = stack.enter_context(job.curves(mode))
                listeners = {"on_row": log} if job is not jobs[-1] else {
                    "on_step": bar.step, "on_row": stage.both(bar.row, log)}
                together.append((job.model, job.wanted, {"folder": job.checkpoints, **listeners}))
            trained = ensemble.train_together(together, dataset)
        for job, result in zip(jobs, trained, strict=True):
            result.notes[:0] = notes
            job.done(result, seeds_together=seeds)
    return [job.folder for job in jobs]
