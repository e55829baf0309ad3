"""`scae bench`: seconds per training step and forward pass, port against reference, and the floor.

Port and reference run in two processes, since TensorFlow and a compiling torch do not share one, and
take turns: one run of every variant, then the next round, so that what else the machine does meets
all alike. Each figure is the fastest round (the one least disturbed); medians stand beside it. Ratios
are taken within one call only.

The floor is the encoder's convolutions alone, forward and backward, channels last, the faster of
eager and compiled: no port does without them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pipelines.bench.worker import REFERENCES
from pipelines.support.values import BadInput

WITH_PARTS = ("scae", "ocae", "hierarchy", "pcae")  # kinds whose part encoder's convolutions are the floor
N_WARM_UP = 2  # rounds; one where a single round is asked for
MEMORY_STEPS = 5


@dataclass(frozen=True)
class Options:
    """What is measured, and how.

    Attributes:
        preset: of `params`.
        params: the file of presets.
        batch_size: images a step; None is the preset's own, as in training.
        repeats: rounds.
        threads: of the CPU; 0 for all cores.
        device: of the port, `cpu` or `cuda`; the reference runs on the CPU and only beside it.
        plain: time the port without its kernels too.
        floors: measure what memory, arithmetic and launches allow at best, and where the time goes.
    """

    preset: str = "mnist"
    params: str = "params.yaml"
    batch_size: int | None = None
    repeats: int = 10
    threads: int = 0
    device: str = "cpu"
    plain: bool = True
    floors: bool = False


class Worker:
    """One side in its own process."""

    def __init__(self, side: str, options: Options, threads: int):
        self.side, self.options, self.threads = side, options, threads
        self.start()

    def start(self) -> None:
        """Begin the process."""
        side, options, threads = self.side, self.options, self.threads
        given = {"preset": options.preset, "params": options.params, "batch_size": options.batch_size,
                 "threads": threads, "device": options.device}
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if side == "reference":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.bench.worker", side, json.dumps(given)], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=environment)

    def ask(self, *request) -> object:
        """The worker's answer.

        Raises:
            RuntimeError: the worker could not do it, in its own words.
        """
        line = ""
        if self.process.poll() is None:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": self.last_words()}
        if "error" in answer:
            if answer.get("kind") == "RungFailed":
                self.begin_again()
            raise RuntimeError(answer["error"])
        return answer["ok"]

    def last_words(self) -> str:
        """Why the process ended: the last line of its errors."""
        self.process.wait(timeout=60)
        self.log.seek(0)
        lines = self.log.read().strip().splitlines() or ["no message"]
        return f"the {self.side}'s process ended with code {self.process.returncode}: {lines[-1][:300]}"

    def begin_again(self) -> None:
        """A fresh process, where a step that could not be made on its rung ended the last one."""
        self.close()
        self.start()

    def close(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)
        self.log.close()


def run(options: Options, path: str | None = None) -> dict:
    """Measure, print a table, and write JSON where asked to.

    Raises:
        BadInput: options that cannot be used.
    """
    options = check(options, path)
    kind = kind_of(options)
    threads = options.threads or os.cpu_count() or 1
    port = Worker("port", options, threads)
    sides = [port]
    without = why_no_reference(kind, options.device)
    if without is None:
        sides.append(Worker("reference", options, threads))
    try:
        told = [side.ask("describe") for side in sides]
        samples, notes = measure(sides, options, kind)
        found = summary(samples, options) | {"notes": notes, "threads": threads} | told[0]
        if without is not None:
            notes.append(f"no reference: {without}")
        if kind not in WITH_PARTS:
            notes.append(f"no floor of convolutions: model {kind} has no part encoder; --floors has this model's own")
    finally:
        for side in sides:
            side.close()
    found |= memory(found, options, threads)
    if options.floors:
        found["floors"] = floors(options, threads)
    print(table(found))
    if path is not None:
        write(found, Path(path))
        print(f"bench: numbers in {path}")
    return found


def kind_of(options: Options) -> str:
    """The kind of model that a preset describes."""
    from pipelines.support import settings
    return settings.load_preset(options.preset, None, options.params).config().kind


def why_no_reference(kind: str, device: str) -> str | None:
    """Why the reference is not timed beside the port; None where it is."""
    if kind not in REFERENCES:
        return f"that of model {kind} is not timed"
    if device != "cpu":
        return "it runs on the CPU only"
    return None if importlib.util.find_spec("tensorflow") is not None else "TensorFlow is not installed"


def check(options: Options, path: str | None) -> Options:
    """Refuse what cannot work before minutes are spent; the options with the preset's batch size.

    Raises:
        BadInput: says what to change.
    """
    from pipelines import train as stage
    from pipelines.support import settings
    preset = settings.load_preset(options.preset, None, options.params)
    preset.config()
    if options.batch_size is None:
        options = replace(options, batch_size=stage.without_epochs(preset).train(0)[0].batch_size)
    for name in ("batch_size", "repeats"):
        if getattr(options, name) < 1:
            raise BadInput(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    if options.threads < 0:
        raise BadInput(f"--threads must be at least 1, or 0 for all cores, not {options.threads}")
    if options.device not in ("cpu", "cuda"):
        raise BadInput(f"--device must be cpu, cuda or pretended, not {options.device}")
    if path is not None and not Path(path).resolve().parent.is_dir():
        raise BadInput(f"--json {path}: there is no folder {Path(path).resolve().parent}")
    if options.device == "cuda":
        from pipelines.support import environment
        environment.choose_device("cuda")
    return options


def variants(options: Options, kind: str = "scae") -> Iterator[tuple[str, str]]:
    """(side, variant) of one round of a kind of model."""
    modes = ["eager", "compiled"] if can_compile(options.device) else ["eager"]
    captured = ["captured", "compiled_captured"] if options.device == "cuda" else []
    for what in ("step", "forward"):
        for mode in modes + (captured if what == "step" else []):
            yield "port", f"{what} {mode} fast"
        if options.plain and options.device == "cpu":
            # Compiled too it would take most of the time, and is what nobody runs.
            yield "port", f"{what} eager plain"
        yield "reference", what
    for mode in modes if kind in WITH_PARTS else ():
        yield "port", f"convolutions {mode}"


def can_compile(device: str) -> bool:
    """Whether torch.compile finds the compiler it needs."""
    return device != "cpu" or any(map(shutil.which, ("g++", "clang++", os.environ.get("CXX") or "g++")))


def measure(sides: list[Worker], options: Options, kind: str = "scae") -> tuple[dict[str, list[float]], list[str]]:
    """Seconds of every round by variant, and why a variant is missing."""
    workers = {side.side: side for side in sides}
    todo = [(side, name) for side, name in variants(options, kind) if side in workers]
    samples: dict[str, list[float]] = {}
    notes = [] if can_compile(options.device) else ["not compiled: torch.compile finds no C++ compiler"]
    warm_up = min(N_WARM_UP, options.repeats)
    for i in range(warm_up + options.repeats):
        for side, name in list(todo):
            key = f"{side} {name}"
            try:
                seconds = workers[side].ask("run", name)
            except RuntimeError as error:
                todo.remove((side, name))
                samples.pop(key, None)
                notes.append(f"{key}: {error}")
                continue
            if i >= warm_up:
                samples.setdefault(key, []).append(seconds)
        print(f"bench: round {i + 1} of {warm_up + options.repeats}"
              f"{' (warm-up)' if i < warm_up else ''}", file=sys.stderr, flush=True)
    return samples, notes


def summary(samples: dict[str, list[float]], options: Options) -> dict:
    """The figures of the contract, and what they were made from."""
    fastest = {name: min(seconds) for name, seconds in samples.items()}

    def best(*starts: str) -> float | None:
        return min((v for name, v in fastest.items() if name.startswith(starts)), default=None)

    def over(one: float | None, other: float | None) -> float | None:
        return None if one is None or other is None else one / other

    found: dict = {}
    for title, what in (("train_step", "step"), ("forward", "forward")):
        ours, theirs = best(f"port {what}"), best(f"reference {what}")
        found[title] = {
            "port_eager_s": best(f"port {what} eager "), "port_compiled_s": best(f"port {what} compiled "),
            "reference_s": theirs, "ratio": over(theirs, ours)}
        if options.device == "cuda" and what == "step":
            found[title]["port_captured_s"] = best("port step captured ")
            found[title]["port_compiled_captured_s"] = best("port step compiled_captured ")
    floor = best("port convolutions")
    found |= {"convolutions_floor_s": floor, "floor_multiple": over(best("port step"), floor),
              "forward_floor_multiple": over(best("port forward"), floor), "memory_mb": None}
    fast = [name for name in fastest if name.startswith("port step")]
    return found | {
        "fastest_step": min(fast, key=fastest.get).removeprefix("port ") if fast else None,
        "statistic": "minimum", "minima_s": fastest,
        "medians_s": {name: statistics.median(seconds) for name, seconds in samples.items()},
        "samples_s": samples, "options": asdict(options)}


def memory(found: dict, options: Options, threads: int) -> dict:
    """Peak memory of a process that only trains, by the fastest variant."""
    if found["fastest_step"] is None:
        return {}
    worker = Worker("port", options, threads)
    try:
        return worker.ask("memory", found["fastest_step"], MEMORY_STEPS)
    finally:
        worker.close()


def floors(options: Options, threads: int) -> dict:
    """Floors and breakdown from a process of their own; see `pipelines.bench.floors`."""
    worker = Worker("port", options, threads)
    try:
        return worker.ask("floors")
    finally:
        worker.close()


def table(found: dict) -> str:
    """The figures for a terminal."""
    floor, options = found["convolutions_floor_s"], found["options"]
    lines = [f"bench: preset {options['preset']}, batch {options['batch_size']}, {found['threads']} "
             f"threads, fastest of {options['repeats']} rounds",
             f"  pixel likelihood: {found['pixel_likelihood']}",
             f"  {'':34}{'seconds':>9}{'median':>9}{'x floor':>9}"]
    for name, seconds in found["minima_s"].items():
        times = "" if floor is None else f"{seconds / floor:9.2f}"
        lines.append(f"  {name:34}{seconds:9.4f}{found['medians_s'][name]:9.4f}{times}")
    for title in ("train_step", "forward"):
        if found[title]["ratio"] is not None:
            lines.append(f"  {title}: reference / fastest port = {found[title]['ratio']:.2f}")
    if found["floor_multiple"] is not None:
        lines.append(f"  train_step: {found['floor_multiple']:.2f} x the convolutions; forward "
                     f"{found['forward_floor_multiple']:.2f} x")
    if found["memory_mb"] is not None:
        lines.append(f"  peak resident memory of training: {found['memory_mb']:.0f} MB")
    if found.get("floors"):
        if found["fastest_step"] is None:
            lines.append("  floors: compared with nothing, since no step of the port could be made (notes below)")
        else:
            from pipelines.bench import floors as bench_floors
            lines += bench_floors.lines(found["floors"], found["minima_s"][f"port {found['fastest_step']}"])
    return "\n".join(lines + [f"  note: {note}" for note in found["notes"]])


def write(found: dict, path: Path) -> None:
    """JSON, whole or not at all."""
    from pipelines.support.output import write_json  # here, since the sides are timed in processes without torch

    write_json(path, found)
