"""The DVC files: every stage resolves, a change reruns what depends on it and nothing else.

In a copy of the repository's DVC files the commands are replaced by a stand-in that writes the
stage's outputs at once, so that DVC itself decides what is stale.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from parity_tests.goldens import REPOSITORY
from pipelines.support.values import load_params

dvc_repo = pytest.importorskip("dvc.repo", reason="needs DVC")

PAPER = "pipelines/dvc.yaml"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc.*")
STAND_IN = '''# Write every output of a stage: sh stand_in.sh OUT...; without suffix it is a folder.
for out in "$@"; do
    mkdir -p "$(dirname "$out")"
    case "$out" in
    *.json) echo '{"value": 1}' > "$out" ;;
    *.*) printf 'step,rec_ll\\n1,2\\n' > "$out" ;;
    *) mkdir -p "$out" && echo content > "$out/file" ;;
    esac
done
'''


def stages_of(name: str) -> dict:
    """The stages of a DVC file of the repository, templates unresolved."""
    return yaml.safe_load((REPOSITORY / name).read_text())["stages"]


def outputs(stage: dict) -> list[str]:
    listed = [one for kind in ("outs", "metrics", "plots") for one in stage.get(kind, [])]
    return [one if isinstance(one, str) else next(iter(one)) for one in listed]


def copy_of_the_repository(folder: Path) -> Path:
    """DVC files with the stand-in for a command, parameters, and what the stages depend on."""
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text("[core]\n    analytics = false\n    no_scm = true\n")
    (folder / "stand_in.sh").write_text(STAND_IN)
    shutil.copy(REPOSITORY / "params.yaml", folder)
    for name in ("dvc.yaml", PAPER):
        content = yaml.safe_load((REPOSITORY / name).read_text())
        for stage in content["stages"].values():
            stage["cmd"] = " ".join(["sh stand_in.sh", *outputs(stage)])
            for path in stage["deps"]:
                if not path.startswith("results/") or path == "results/mutants.json":
                    inside = "file" if (REPOSITORY / path).is_dir() else ""
                    (folder / path / inside).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path / inside).write_text("x")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def run(folder: Path, target: str | None = None, **options) -> list[str]:
    """`dvc repro`; the names of the stages that ran."""
    with contextlib.chdir(folder):
        return [stage.name for stage in dvc_repo.Repo().reproduce(target, **options)]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """All stages of an untouched copy, and who depends on whom."""
    with contextlib.chdir(copy_of_the_repository(tmp_path_factory.mktemp("whole"))):
        found = dvc_repo.Repo().index
        assert found.graph  # also refuses outputs that overlap
        return found


@pytest.fixture(scope="module")
def matrix() -> dict:
    return load_params(REPOSITORY / "params.yaml")["matrix"]


def upstream(index, name: str) -> set[str]:
    import networkx
    stage = next(stage for stage in index.stages if stage.name == name and PAPER in stage.addressing)
    return {found.name for found in networkx.descendants(index.graph, stage)}


def any_item(path: str) -> str:
    """A path of a matrix stage, with * for what the matrix puts in."""
    return re.sub(r"\$\{[^}]*\}", "*", path)


@pytest.mark.parametrize("name", ["dvc.yaml", PAPER])
def test_what_stages_depend_on_exists(name) -> None:
    """A file that was renamed would make a stage fail only when somebody runs it."""
    made = {path for one in ("dvc.yaml", PAPER) for stage in stages_of(one).values()
            for path in outputs(stage)}
    made |= {path.replace("${item.seed}", "0") for path in made}
    for stage in stages_of(name).values():
        for path in stage["deps"]:
            wild, whole = any_item(path), f"{any_item(path)}/*"
            from_a_stage = any(fnmatch.fnmatch(wild, any_item(out)) or fnmatch.fnmatch(any_item(out), whole)
                               for out in made)
            assert "${" in path or from_a_stage or (REPOSITORY / path).exists(), path
            if "${" in path:
                assert from_a_stage, path


def test_every_preset_and_seed_has_its_stages(index, matrix) -> None:
    names = {stage.name for stage in index.stages if PAPER in stage.addressing}
    presets, seeds = matrix["presets"], matrix["seeds"]
    image, routing = matrix["image_presets"], matrix["routing_presets"]
    assert presets == image + routing
    expected = {f"{stage}@{preset}-{seed}" for stage in ("train", "evaluate") for preset in image for seed in seeds}
    expected |= {f"{stage}_routing@{preset}-{seed}" for stage in ("train", "evaluate") for preset in routing
                 for seed in seeds}
    expected |= {f"{stage}@{preset}" for stage in ("raw", "prepare", "aggregate") for preset in presets}
    expected |= {f"affnist@{preset}-{seed}" for preset in matrix["affnist"] for seed in seeds}
    expected |= {f"aggregate_affnist@{preset}" for preset in matrix["affnist"]}
    expected |= {f"{stage}_digits@digits-{seed}" for stage in ("train", "evaluate")
                 for seed in matrix["more_digits_seeds"]}
    expected |= {f"{stage}_constellation@{preset}-{seed}" for stage in ("train", "evaluate")
                 for preset in matrix["constellations"] for seed in seeds}
    expected |= {f"{stage}_constellation@{preset}" for stage in ("raw", "prepare")
                 for preset in matrix["constellations"]}
    expected |= {f"{stage}_modes@{preset}-{seed}" for stage in ("train", "evaluate")
                 for preset in matrix["modes"] for seed in matrix["mode_seeds"]}
    expected |= {f"{stage}_ocae@ocae-{seed}" for stage in ("train", "evaluate")
                 for seed in matrix["mode_seeds"]}
    expected |= {f"{stage}_modes@{preset}" for stage in ("raw", "prepare")
                 for preset in matrix["all_modes"]}
    ablation = load_params(REPOSITORY / "params.yaml")["ablation"]
    expected |= {f"ablation@{row}-{seed}" for row in ablation["rows"] for seed in ablation["seeds"]}
    expected |= {f"capsnet_dimensions@{preset}" for preset in matrix["capsnet_dimensions"]}
    expected |= {f"capsnet_{stage}@{preset}" for stage in ("classification", "reconstruction")
                 for preset in matrix["capsnet_experiments"]}
    assert names == expected | {"aggregate_digits@digits", "ablation_table", "report"}
    known = load_params(REPOSITORY / "params.yaml")["presets"]
    assert set(presets) <= set(known) and set(matrix["affnist"]) <= set(presets)
    assert set(matrix["constellations"]) <= set(known) - set(presets)
    assert set(matrix["capsnet_dimensions"]) <= set(presets)


def test_stages_depend_on_their_own_preset_only(index, matrix) -> None:
    assert upstream(index, "train@mnist-0") == {"raw@mnist", "prepare@mnist"}
    seeds = matrix["seeds"]
    own = {"raw@usps", "prepare@usps"} | {
        f"{stage}@usps-{seed}" for stage in ("train", "evaluate") for seed in seeds}
    assert upstream(index, "aggregate@usps") == own
    assert upstream(index, "evaluate_ocae@ocae-1") == {
        "raw_modes@pcae", "raw_modes@ocae", "prepare_modes@pcae", "prepare_modes@ocae",
        "train_modes@pcae-1", "train_ocae@ocae-1"}
    assert upstream(index, "aggregate_affnist@mnist") == {"raw@mnist", "prepare@mnist"} | {
        f"{stage}@mnist-{seed}" for stage in ("train", "affnist") for seed in seeds}
    more = {f"{stage}_digits@digits-{seed}" for stage in ("train", "evaluate")
            for seed in matrix["more_digits_seeds"]}
    assert upstream(index, "aggregate_digits@digits") == {"prepare", "train", "evaluate"} | more
    assert {f"aggregate@{preset}" for preset in matrix["presets"]} <= upstream(index, "report")


def test_parameters_are_those_of_the_stage_s_own_preset(index) -> None:
    for stage in index.stages:
        if "@" in stage.name and "_digits" not in stage.name and not stage.name.startswith("ablation"):
            preset = stage.name.split("@")[1].split("-")[0] + {  # a run that goes with the preset's
                "capsnet_classification": "_plain", "capsnet_reconstruction": "_frozen"}.get(
                stage.name.split("@")[0], "")
            preset = "ocae" if "_ocae@" in stage.name else preset
            named = {key.split(".")[1] for parameters in stage.params for key in parameters.params
                     if key.startswith("presets.")}
            assert named == {preset}, stage.name


@pytest.fixture(scope="module")
def done(tmp_path_factory, tier) -> Path:
    """A small matrix run to the end: mnist and usps, seeds 0 and 1."""
    if tier == "smoke":
        pytest.skip("smoke tier: no run of all stages")
    folder = copy_of_the_repository(tmp_path_factory.mktemp("done"))
    text = (folder / "params.yaml").read_text()
    small = "matrix:\n  presets: [mnist, usps]\n  image_presets: [mnist, usps]\n" \
            "  routing_presets: []\n  seeds: [0, 1]\n  affnist: [mnist]\n" \
            "  more_digits_seeds: [1]\n  constellations: []\n" \
            "  capsnet_dimensions: []\n  capsnet_experiments: []\n" \
            "  modes: []\n  all_modes: []\n  mode_seeds: []\n"
    text = re.sub(r"(?s)^matrix:.*?(?=^presets:)", small, text, flags=re.M)
    (folder / "params.yaml").write_text(re.sub(r"(?s)(?<=^  rows:\n).*?(?=^  changes:)", "  - complete\n",
                                               text, flags=re.M))
    run(folder, all_pipelines=True)
    assert stale(folder) == set()
    return folder


def stale(folder: Path) -> set[str]:
    """Stages that DVC would run again by themselves, by name, but for those that always run."""
    with contextlib.chdir(folder):
        found = {name.rpartition(":")[2] for name in dvc_repo.Repo().status()}
        return {name for name in found if not name.startswith("raw@")}


@pytest.fixture
def copy(done, tmp_path) -> Path:
    return shutil.copytree(done, tmp_path / "copy")


@pytest.mark.slow
def test_a_changed_preset_reruns_only_its_own(copy) -> None:
    text = (copy / "params.yaml").read_text()
    start = text.index("  usps:\n")
    (copy / "params.yaml").write_text(text[:start] + text[start:].replace("steps: ", "steps: 1", 1))
    assert stale(copy) == {"train@usps-0", "train@usps-1", "aggregate@usps"}


@pytest.mark.slow
def test_changed_raw_data_rerun_what_comes_from_them(copy) -> None:
    """The stage that always runs finds another digest; where it finds the same, nothing follows."""
    assert run(copy, f"{PAPER}:prepare@usps") == ["raw@usps"]
    record = copy / "results" / "raw" / "usps" / "files.json"
    (copy / "stand_in.sh").write_text(STAND_IN.replace('"value": 1', '"value": 3'))
    assert run(copy, f"{PAPER}:prepare@usps") == ["raw@usps", "prepare@usps"]
    assert "3" in record.read_text()


@pytest.mark.slow
def test_a_seed_more_is_one_number(copy) -> None:
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace("seeds: [0, 1]", "seeds: [0, 1, 2]", 1))
    new = {f"{stage}@{preset}-2" for stage in ("train", "evaluate") for preset in ("mnist", "usps")}
    assert stale(copy) == new | {"affnist@mnist-2"}
    run(copy, f"{PAPER}:aggregate@usps")
    assert (copy / "results" / "evaluate" / "usps" / "2" / "metrics.json").exists()
    assert not (copy / "results" / "train" / "mnist" / "2").exists()


@pytest.mark.slow
def test_results_from_elsewhere_are_aggregated_without_training(done, tmp_path) -> None:
    """Only what git keeps is there: the numbers, configurations and environments of each seed."""
    folder = copy_of_the_repository(tmp_path)
    shutil.copy(done / "params.yaml", folder)
    for name in ("metrics.json", "config.json", "environment.json"):
        for stage in ("train", "evaluate"):
            path = folder / "results" / stage / "usps" / "0" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"value": 2}')
    assert run(folder, f"{PAPER}:aggregate@usps", single_item=True) == ["aggregate@usps"]
    (folder / "results" / "ablation_table").mkdir()
    (folder / "results" / "ablation_table" / "metrics.json").write_text('{"value": 2}')
    assert run(folder, f"{PAPER}:report", single_item=True) == ["report"]
    assert not (folder / "results" / "train" / "usps" / "0" / "model").exists()


@pytest.mark.parametrize("path", [
    "results/train/mnist/0/metrics.json", "results/train/mnist/0/config.json",
    "results/train/mnist/0/environment.json", "results/evaluate/mnist/0/metrics.json",
    "results/evaluate/mnist_on_affnist/3/config.json", "results/aggregate/mnist/metrics.json",
    "results/aggregate/mnist/curves.csv", "results/ablation/no_noise/0/config.json",
    "results/ablation_table/metrics.json"])
def test_git_keeps_what_an_aggregate_needs(path) -> None:
    assert not ignored(path)


@pytest.mark.parametrize("path", [
    "results/train/mnist/0/model/config.json", "results/train/mnist/0/live/metrics.json",
    "results/train/mnist/0/history.csv", "results/prepare/mnist/data.npz", "results/paper.html"])
def test_git_leaves_out_what_is_large_or_made_again(path) -> None:
    assert ignored(path)


def ignored(path: str) -> bool:
    found = subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=REPOSITORY, check=False,
                           capture_output=True)
    if found.returncode == 128:
        pytest.skip("no git repository")
    return found.returncode == 0
