"""A stage depends on every file whose code it runs, and on no other family's folder.

DVC does not follow imports, so files and folders stand in dvc.yaml; a stage that lacked one would not run again after
an edit there.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator

import pytest

from parity_tests.goldens import REPOSITORY
from parity_tests.tests.pipelines import code_reached
from pipelines.support import own_images, settings
from pipelines.support.values import load_params
from pipelines.training import rows

PARAMS = REPOSITORY / "params.yaml"
GIVEN = load_params(PARAMS)
ABLATION = rows.section(PARAMS)
IMAGE_KINDS = ("scae", "ocae", "pcae", "hierarchy")
# Files → kinds of models that use them. The table of families and the one of configurations name them all; a stage
# runs those of its presets, and a run of weeks must not begin anew after an edit of another family.
OF_KINDS = {"port/scae/": (*IMAGE_KINDS, "constellation"), "port/constellation/": ("constellation",),
            "pipelines/evaluation/constellation.py": ("constellation",), "port/capsnet/": ("capsnet",),
            "port/em/": ("em",), "pipelines/evaluation/classes.py": ("capsnet", "em")}
# File → data sources that need it: pictures of a folder of one's own.
OF_SOURCES = {"pipelines/commands/given_images.py": own_images.KINDS}
# Program → files that a class needs for what the program does not ask of it: `Preset` can say how it is trained, and
# preparing data does not ask, nor shall data whose raw files lie elsewhere be prepared again after such an edit.
NOT_ASKED_FOR = {"pipelines.prepare": "port/training/"}
# What is called of a program where an option chooses; else all of it counts.
CHOSEN = {"--table": "table"}

STAGES = {f"{file}:{name}": stage for file in ("dvc.yaml", "pipelines/dvc.yaml")
          for name, stage in load_params(REPOSITORY / file)["stages"].items()}


def commands(stage: dict) -> Iterator[str]:
    """Every command of a stage, once for each item of its matrix."""
    told = stage["cmd"] if isinstance(stage["cmd"], list) else [stage["cmd"]]
    matrix = {}
    for key, values in stage.get("matrix", {}).items():
        for part in re.findall(r"[\w.]+", values) if isinstance(values, str) else ():
            values = functools.reduce(lambda found, one: found[one], part.split("."), GIVEN)
        matrix[key] = values
    for items in itertools.product(*matrix.values()):
        for command in told:
            for key, value in zip(matrix, items, strict=True):
                command = command.replace(f"${{item.{key}}}", str(value))
            yield command


def presets_of(command: str) -> set[str]:
    """Presets that a command names: by option, as a run's folder, or as a row of the ablation, whose table has all."""
    found = set(re.findall(r"(?:--preset |--frozen |results/train/)(\w+)", command))
    for name in re.findall(r"--row (\S+)", command) + ABLATION.rows * ("--table" in command):
        found.add(ABLATION.row(name).preset or ABLATION.preset)
    return found


@functools.cache
def facts(preset: str) -> tuple[str, str]:
    """Kind of a preset's model, and its data source."""
    found = settings.load_preset(preset, path=PARAMS)
    return found.config().kind, found.sections["prepare"]["source"]


@functools.cache
def needed(module: str, name: str | None, kinds: frozenset[str], sources: frozenset[str]) -> set[str]:
    """Files that a program runs for some kinds of models and sources; of all kinds where none is named."""
    def skipped(file: str) -> bool:
        return (file.startswith(NOT_ASKED_FOR.get(module, "-"))
                or any(file.startswith(start) and kinds and not kinds & set(own) for start, own in OF_KINDS.items())
                or any(file == one and not sources & set(own) for one, own in OF_SOURCES.items()))
    return code_reached.reached(module, name, skipped)


# What runs whatever has changed is never stale.
@pytest.mark.parametrize("name", [name for name, stage in STAGES.items() if not stage.get("always_changed")])
def test_a_stage_depends_on_the_code_that_it_runs(name: str) -> None:
    stage, wanted = STAGES[name], set()
    programs: dict[tuple[str, str | None], set[str]] = {}
    for command in commands(stage):
        module = re.match(r"python -m (\S+)", command).group(1)
        option = next((called for told, called in CHOSEN.items() if told in command.split()), None)
        programs.setdefault((module, option), set()).update(presets_of(command))
    for (module, option), presets in programs.items():
        kinds, sources = (frozenset(one) for one in zip(*map(facts, presets), strict=True)) if presets else (
            frozenset(), frozenset())
        wanted |= needed(module, option, kinds, sources)
    missing = sorted(file for file in wanted if not any(
        file == path or file.startswith(f"{path}/") for path in stage["deps"]))
    assert not missing, f"{name} runs code that it does not depend on: {missing}"


@pytest.mark.parametrize(("module", "kind", "has", "lacks"), [
    ("pipelines.train", "constellation", ["port/constellation/model.py", "pipelines/evaluation/constellation.py",
                                          "port/evaluation/constellation.py"], ["port/em/network.py"]),
    ("pipelines.prepare", "constellation", ["port/constellation/data.py", "port/constellation/batches.py",
                                            "pipelines/evaluation/constellation.py"], ["port/training/loop.py"]),
    ("pipelines.aggregate", "scae", ["port/evaluation/clustering.py", "port/scae/config.py"],
     ["port/scae/model.py", "port/families.py"]),
    ("pipelines.train", "pcae", ["port/evaluation/parts.py", "pipelines/training/given_parts.py"],
     ["port/em/network.py", "pipelines/evaluation/parts.py"]),
    ("pipelines.evaluate", "em", ["pipelines/evaluation/classes.py", "port/em/network.py"], ["port/scae/model.py"])])
def test_what_is_reached(module: str, kind: str, has: list[str], lacks: list[str]) -> None:
    """Through names, through what functions import, and through modules that a string names."""
    found = needed(module, None, frozenset({kind}), frozenset({"mnist"}))
    assert set(has) <= found and not set(lacks) & found


def test_an_edit_of_another_family_leaves_a_run_alone() -> None:
    """The image model's runs do not depend on the routing ancestors, nor those on it."""
    image, routing = (set(STAGES[f"pipelines/dvc.yaml:{name}"]["deps"]) for name in (
        "train", "train_routing"))
    assert "port/em" not in image and "port/capsnet" not in image and "port/scae" in image
    assert {"port/em", "port/capsnet"} <= routing and "port/scae" not in routing
