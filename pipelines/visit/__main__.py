"""A visit to a lent machine: measure it, then train what waits, and leave everything in one folder.

    python -m pipelines.visit --seconds 560 --out $OUT

Phases: probe (versions, bandwidth, matrix rates), device (the short device tier), times (a step on every
rung), train (the next runs of the queue, on the fastest way that passed, until what is reserved for the end
is left); where they are named, ablation and soak (many small runs beside each other). With a folder `brought`
in the tree, or --resume, it goes on from what an earlier visit brought.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

# Of a program before its imports, which take seconds; a call from another one begins when it is made.
BEGAN = time.monotonic() if __name__ == "__main__" else None
if __name__ == "__main__":  # a dozen processes import the same modules: none may compile them again
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import typer  # noqa: E402

from pipelines.support import environment, settings  # noqa: E402
from pipelines.support.command_line import Params, Program, among, several  # noqa: E402
from pipelines.support.output import write_json  # noqa: E402
from pipelines.support.values import BadInput  # noqa: E402
from pipelines.visit import beside, parcel, queue, ways  # noqa: E402
from pipelines.visit.processes import Visit  # noqa: E402
from port.configuration.fields import unknown  # noqa: E402

USUAL = ("probe", "device", "times", "train")
PHASES = (*USUAL, *beside.PHASES)
TRAIN_SHARE = 0.5      # of the time: what comes before training ends by then
RESERVED = 45.0        # seconds left when training is stopped: its state to the disk, the parcel
PROBE_LIMIT, TIER_LIMIT, PREPARE_LIMIT = 40.0, 60.0, 60.0
PARCEL_EVERY = 60.0    # seconds between two parcels while a run lasts
# What holds on a lent machine alone; the rest of a run's settings are its preset's.
HERE = ("prepare.download=false", "train.wandb=none")
INTERRUPTED, RUNG_FAILED, BAD_INPUT = (130, 143), 3, 2


@dataclass(frozen=True)
class Asked:
    """What the command line asks for; the options of `command` by name."""

    out: Path
    seconds: float
    device: str
    phases: tuple[str, ...]
    ways: tuple[str, ...]
    runs: tuple[str, ...]
    together: int
    queue: Path
    resume: tuple[Path, ...]
    work: Path
    results: Path
    patience: float
    params: str
    section: str
    soak_steps: int


class Stay:
    """One visit: the arguments, the folders, and the phases in their order."""

    def __init__(self, given: Asked) -> None:
        self.given, self.work = given, given.work
        self.reserved = min(RESERVED, given.seconds / 4)
        self.visit = Visit(given.out, given.seconds, BEGAN)
        self.measured = self.work / "measured"
        self.caches = {"TORCHINDUCTOR_CACHE_DIR": str((self.work / "inductor").resolve()),
                       "TRITON_CACHE_DIR": str((self.work / "triton").resolve())}
        self.packed = (None, time.monotonic())

    def run(self) -> int:
        """All phases; 0 when a run was trained or everything asked for was measured."""
        given, visit = self.given, self.visit
        self.place = environment.choose_device(given.device).type
        visit.catch_signals()
        entries = queue.read(given.queue, given.params)
        self.measured.mkdir(parents=True, exist_ok=True)
        visit.write(device=self.place, revision=environment.revision(), phases_asked=list(given.phases))
        for folder in given.resume:
            visit.guarded(named(f"{folder}", lambda folder=folder: self.go_on_from(folder)))
        waiting = queue.waiting(entries, self.work, given.results, self.place, given.params)
        if given.runs:
            names = {entry.name: entry for entry in entries}
            for run in given.runs:
                if run not in names:
                    raise BadInput(unknown("run", run, list(names)))
            waiting = [names[run] for run in given.runs]
        visit.write(waiting=[entry.name for entry in waiting])
        phases = {"probe": self.probe, "device": self.tier, "times": lambda: self.times(waiting),
                  "train": lambda: self.train(waiting),
                  **{name: lambda name=name: self.beside(name) for name in beside.PHASES}}
        for name in PHASES:
            if name in given.phases and not visit.stopped:
                visit.guarded(named(name, phases[name]))
                self.bring()
        self.bring()
        self.conclude()
        if visit.stopped:
            return 128 + visit.stopped
        return int(not any(phase.get("code") in (0, *INTERRUPTED) for phase in visit.summary["phases"]))

    # ------------------------------------------------------------------------------------- phases

    def go_on_from(self, folder: Path) -> None:
        """Checkpoints, and what was measured there, unless it is here already (the machine is warm)."""
        before = parcel.unpack(folder, self.work)
        brought = list(before.get("brought") or ())
        self.visit.write(resumed=[*self.visit.summary.get("resumed", ()), {
            "revision": before.get("revision"), "brought": brought, "lost": before["lost"]}])
        self.visit.say(f"from {folder}: {', '.join(brought or ['no weights'])}"
                       + (f"; lost: {', '.join(before['lost'])}" if before["lost"] else ""))

    def probe(self) -> None:
        path = self.measured / "probe.json"
        path.unlink(missing_ok=True)  # an earlier visit's
        self.visit.phase("probe", ["-m", "pipelines.visit.probe", "--device", self.place, "--json",
                                   str(path)], self.at_most(PROBE_LIMIT))
        if path.exists():
            self.visit.write(probe=json.loads(path.read_text(encoding="utf-8")))

    def tier(self) -> None:
        path = self.measured / "device.json"
        limit = self.at_most(TIER_LIMIT)
        path.unlink(missing_ok=True)
        self.visit.phase("device", ["-m", "parity_tests.device", "--short", "--device", self.place,
                                    "--seconds", f"{max(1.0, limit - 15):.0f}", "--json", str(path)],
                         limit, least=5.0)
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            self.visit.write(device_tier={name: found[name] for name in ("verdict", "seconds", "kinds")} | {
                "failed": [check for check in found["checks"] if check["verdict"] in ("fail", "error")]})

    def times(self, waiting: list[queue.Entry]) -> None:
        """A step of the run that is trained next, on every way there is time for."""
        if not waiting or not self.prepared(waiting[0]):
            return
        for old in self.measured.glob("step *.json"):
            old.unlink()
        for way in ways.possible(self.place):
            if self.given.ways and way.name not in self.given.ways:
                continue
            path = self.measured / f"step {way.name}.json"
            if ways.worth_timing(way, ways.read(self.measured)):
                self.visit.phase(f"time {way.name}", [
                    "-m", "pipelines.visit.step_time", *self.stage(waiting[0]), "--set",
                    f"train.rung={way.rung}", "--json", str(path)],
                    self.at_most(way.limit), least=5.0,
                    environment=way.environment | self.caches)
                self.visit.write(times=ways.read(self.measured))

    def train(self, waiting: list[queue.Entry]) -> None:
        """Run after run while there is time, each a way lower where one fails."""
        tier = self.measured / "device.json"
        order = ways.in_order(ways.read(self.measured),
                              json.loads(tier.read_text(encoding="utf-8")) if tier.exists() else None)
        if self.given.ways:  # untimed, too
            order = [way for way in order if way.name in self.given.ways] or [
                ways.NAMES[name] for name in self.given.ways]
        self.visit.write(order=[way.name for way in order])
        for group in queue.together(waiting, self.given.together):
            if not self.prepared(group[0]):
                continue
            if not order:
                return
            while order:
                code = self.train_on(group, order[0])
                if code is None or code in INTERRUPTED or self.visit.stopped:
                    return  # no time left
                if code in (0, BAD_INPUT):
                    break
                self.visit.say(f"{order[0].name} failed" + (f"; next {order[1].name}" if order[1:] else ""))
                order = order[1:]

    def beside(self, phase: str) -> None:
        """Rows of the ablation or soaks beside each other, until there is just time to bring them home."""
        tier = self.measured / "device.json"
        parcel.forget_halves(self.work)
        beside.bring_along(self.given.results, self.work, self.place)
        limit = self.visit.left - self.reserved
        self.visit.phase(phase, beside.command(
            phase, limit, self.work, self.place, self.given.params, self.given.section, self.given.soak_steps,
            self.given.together if self.given.together > 1 else None), limit, least=5.0,
            environment=self.caches | beside.environment(bool(tier.exists() and ways.wrong_kernels(
                json.loads(tier.read_text(encoding="utf-8"))))), watch=self.bring_now_and_then)
        self.visit.write(beside=beside.counted(self.work))

    def train_on(self, group: list[queue.Entry], way: ways.Way) -> int | None:
        """Train runs from their newest checkpoints, if any, until there is just time to bring them home."""
        # Read back at home (`bring_home`): what a run is, and where a part of it was made.
        for entry in group:
            write_json(self.work / "runs" / f"{entry.name}.json", {
                "preset": entry.preset, "seed": entry.seed, "way": way.name, "rung": way.rung,
                "kernels": way.kernels, "sections": entry.chosen(self.given.params).as_params(),
                "environment": self.machine()})
        names = " ".join(entry.name for entry in group)
        self.visit.write(run=names, way=way.name)
        return self.visit.phase(
            f"train {names} {way.name}", [
                "-m", "pipelines.train", *self.stage(*group), "--runs", str(self.work / "checkpoints"),
                "--set", f"train.rung={way.rung}"],
            self.visit.left - self.reserved, least=5.0, environment=way.environment | self.caches,
            watch=self.bring_now_and_then)

    def prepared(self, entry: queue.Entry) -> bool:
        """Whether the run's data are here."""
        folder = settings.folder_of("prepare", entry.preset, results=self.work / "results")
        return (folder / "data.npz").exists() or self.visit.phase(
            f"prepare {entry.preset}", ["-m", "pipelines.prepare", *self.preset(entry)],
            min(PREPARE_LIMIT * self.given.patience, self.visit.left - self.reserved)) == 0

    def stage(self, entry: queue.Entry, *more: queue.Entry) -> list[str]:
        """Arguments of a stage for a run, or for several that differ in their seed."""
        seeds = [str(one.seed) for one in (entry, *more)]
        return [*self.preset(entry), *(["--seeds", *seeds] if more else ["--seed", *seeds]), "--device", self.place]

    def preset(self, entry: queue.Entry) -> list[str]:
        """Arguments of a stage for a preset."""
        changed = [*(entry.overrides or ()), *HERE]
        changed += [f"train.steps={entry.steps}"] * bool(entry.steps)
        return ["--preset", entry.preset, "--params", str(self.given.params), "--results",
                str(self.work / "results"), *(word for change in changed for word in ("--set", change))]

    def machine(self) -> dict:
        """What is recorded of a machine, as the probe found it, else as a child finds it: no GPU is touched here."""
        probe, own = self.measured / "probe.json", self.measured / "machine.json"
        if probe.exists():
            return json.loads(probe.read_text(encoding="utf-8"))["environment"]
        if not own.exists():
            self.visit.phase("machine", ["-m", "pipelines.visit.probe", "--facts", "--device", self.place, "--json",
                                         str(own)], PROBE_LIMIT * self.given.patience)
        if own.exists():
            return json.loads(own.read_text(encoding="utf-8"))["environment"]
        return environment.describe("cpu") | {"device": self.place, "device_name": "unknown"}

    def at_most(self, limit: float) -> float:
        """A limit, or what is left for all that comes before training."""
        trains = set(self.given.phases) & {"train", *beside.PHASES}
        end = self.visit.seconds * TRAIN_SHARE if trains else self.visit.seconds - self.reserved
        return min(limit * self.given.patience, end - self.visit.spent)

    # --------------------------------------------------------------------------------- bring home

    def bring(self) -> None:
        """The parcel as things stand."""
        for _ in range(3):  # training may replace a checkpoint meanwhile
            try:
                self.visit.write(**parcel.pack(self.work, self.given.out))
                break
            except FileNotFoundError:
                time.sleep(0.5)
            except Exception as error:  # the earlier parcel and the summary are still there
                self.visit.say(f"parcel: {type(error).__name__}: {error}")
                break
        self.packed = (next(iter(parcel.newest_checkpoints(self.work)), None), time.monotonic())

    def bring_now_and_then(self) -> None:
        """A parcel while a run lasts, when there is a newer checkpoint."""
        if time.monotonic() - self.packed[1] > PARCEL_EVERY:
            newest = next(iter(parcel.newest_checkpoints(self.work)), None)
            if newest != self.packed[0]:
                self.bring()
            self.packed = (newest, time.monotonic())

    def conclude(self) -> None:
        """The summary in a few lines."""
        summary = self.visit.summary
        for name, facts in (summary.get("times") or {}).items():
            self.visit.say(f"{name}: {1.0 / facts['step_s']:.1f} steps/s, first step "
                           f"{facts['first_s']:.1f} s, {facts['likelihood']}")
        if "device_tier" in summary:
            self.visit.say(f"device tier: {summary['device_tier']['verdict']}")
        left_out = summary.get("left_out")
        self.visit.say(f"brought: {', '.join(summary.get('brought') or ['no weights'])}"
                       + (f"; left out: {', '.join(left_out)}" if left_out else ""))
        self.visit.write()


def named(name: str, work: Callable[[], None]) -> Callable[[], None]:
    """A function under a name, for a message."""
    work = (lambda inner: lambda: inner())(work)
    work.__name__ = name
    return work


def command(out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that is brought home.")],
            seconds: Annotated[float, typer.Option(help="Of the whole visit.")] = 560.0,
            device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
            phases: Annotated[list[str], several(
                metavar="PHASE", help=f"These of {', '.join(PHASES)}; default: the first {len(USUAL)}.",
                callback=among(PHASES))] = USUAL,
            only: Annotated[list[str] | None, several(
                "--ways", metavar="WAY", help=f"Time and train these ways and no other: {', '.join(ways.NAMES)}.",
                callback=among(ways.NAMES))] = None,
            run: Annotated[list[str] | None, several(
                metavar="PRESET-SEED", help="Train these runs of the queue alone.")] = None,
            together: Annotated[int, typer.Option(
                metavar="N", min=1, help="So many runs that differ in their seed alone train beside each other.")] = 1,
            section: Annotated[str, typer.Option(help="Of the phase ablation.")] = "ablation_small",
            soak_steps: Annotated[int, typer.Option(min=1, help="Of each run of the phase soak.")] = 50_000,
            waiting: Annotated[Path, typer.Option(
                "--queue", metavar="FILE", help="The runs that wait.")] = queue.QUEUE,
            resume: Annotated[list[Path] | None, several(
                metavar="DIR", help="What an earlier visit brought; default: the folder `brought`, or those in it, "
                "where there is one.")] = None,
            work: Annotated[Path, typer.Option(
                metavar="DIR", help="Kept between two calls.")] = Path("runs") / "visit",
            results: Annotated[Path, typer.Option(metavar="DIR", help="Runs that are done.")] = Path("results"),
            patience: Annotated[float, typer.Option(
                metavar="FACTOR", help="On the limits of the phases, for a slow or busy machine.")] = 1.0,
            revision: Annotated[str | None, typer.Option(
                help="Of the tree, which a copy without git does not know.")] = None,
            params: Params = "params.yaml") -> int:
    """A visit to a lent machine: measure it, then train what waits, and leave everything in one folder."""
    if revision:
        os.environ["SCAE_REVISION"] = revision
    if resume is None:
        resume = sorted(path.parent for path in [*Path("brought").glob("summary.json"),
                                                 *Path("brought").glob("*/summary.json")])
    if not seconds > 0:
        raise BadInput(f"--seconds {seconds}: give a number above 0")
    return Stay(Asked(out, seconds, device, tuple(phases), tuple(only or ()), tuple(run or ()), together,
                      waiting, tuple(resume), work, results, patience, params, section, soak_steps)).run()


main = Program("python -m pipelines.visit", command)


if __name__ == "__main__":
    raise SystemExit(main())
