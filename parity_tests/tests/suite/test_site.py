"""The site: links and navigation, pages that programs write, the tutorial as a program; deep: the builder itself."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.tests.training import test_train_stage
from pipelines import cli
from pipelines import train as stage
from pipelines.pages import __main__ as pages
from pipelines.pages import command_line, configuration, notebook, python_api
from pipelines.support import console, settings
from port.constellation import config as constellation
from port.core.quirks import QUIRKS
from port.training import schedule

DOCS = REPOSITORY / "docs"
SOURCES = [*sorted(DOCS.rglob("*.md")), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "README.md"]


def navigation(entries: list | None = None) -> list[str]:
    """Pages in the order of the site's navigation."""
    if entries is None:
        text = re.sub(r"!ENV", "", (REPOSITORY / "mkdocs.yml").read_text())
        entries = yaml.safe_load(text)["nav"]
    found = []
    for entry in entries:
        for target in entry.values():
            found += [target] if isinstance(target, str) else navigation(target)
    return found


def anchors(text: str) -> set[str]:
    """Names that headings get, as the builder makes them."""
    heads = re.findall(r"^#+ (.+?)\s*$", text, re.M)
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"[`*$\\{}]", "", head)).strip().lower() for head in heads]
    return {re.sub(r"[-\s]+", "-", head) for head in plain}


def broken(source: Path) -> list[str]:
    """Links of a page that lead nowhere: neither to a file nor to a page that programs write."""
    text = re.sub(r"```.*?```", "", source.read_text(), flags=re.S)
    found = []
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text):
        if "://" in target:
            continue
        file = (source.parent / target).resolve() if target else source
        if file.is_relative_to(DOCS) and file.relative_to(DOCS).as_posix() in {*pages.WRITTEN, notebook.PLACE}:
            continue
        if not file.exists():
            found.append(f"{target} is not there")
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            found.append(f"{target}#{anchor}: no such heading")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_lead_somewhere(source: Path) -> None:
    assert not broken(source)


def test_a_broken_link_is_seen(tmp_path: Path) -> None:
    """Or the test above would be empty."""
    page = tmp_path / "page.md"
    page.write_text("# Here\n\n[a](nowhere.md) [b](#here) [c](#there) [d](page.md#here)\n")
    assert broken(page) == ["nowhere.md is not there", "#there: no such heading"]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_files_and_programs_that_a_page_names(source: Path) -> None:
    """They are there: paths of the repository in backticks, and what follows `python -m`."""
    text = source.read_text()
    named = set(re.findall(r"`((?:port|reference|parity_tests|pipelines|tools|docs)/[\w./-]+)`", text))
    modules = set(re.findall(r"python3? -m ((?:parity_tests|pipelines)(?:\.\w+)*)", text))
    places = {module: REPOSITORY / module.replace(".", "/") for module in modules}
    missing = [name for name in named if not (REPOSITORY / name).exists()]
    missing += [module for module, at in places.items()
                if not at.with_suffix(".py").is_file() and not (at / "__main__.py").is_file()]
    assert not missing


def test_every_page_stands_once_in_the_navigation() -> None:
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    there |= set(pages.WRITTEN) | set(pages.ROOT_PAGES)
    listed = navigation()
    assert sorted(listed) == sorted(there), "mkdocs.yml: nav and the pages differ"


def test_every_configuration_key_is_on_its_page() -> None:
    """With a meaning: names as `port.config` and the stages read them."""
    shown = {key.name for group in configuration.groups() for key in group.keys}
    for flat in (*port.config.FLATS.values(), constellation.FLAT):
        for place in {place for places in flat.values() for place in places}:
            spelled = {name for name, places in flat.items() if place in places}
            assert spelled & shown or place == ("", "unset"), place
    for kind in (port.config.CapsNetConfig(), port.config.EMConfig()):
        names = {re.sub(r"^(class_)?routing\.", "", name) for name in port.config.to_flat(kind)} - {"model"}
        assert names <= shown, names - shown
    wanted = {f"train.{field.name}" for field in dataclasses.fields(schedule.Settings)} - {"train.seed"}
    assert wanted | {f"train.{name}" for name in settings.TRAIN_EXTRAS} <= shown
    sections = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    for section in settings.STAGES:
        assert {f"{section}.{key}" for key in sections.get(section) or {}} <= shown, section
    lacking = [key.name for group in configuration.groups() for key in group.keys if not key.meaning or not key.kind]
    assert not lacking
    page = configuration.page()
    assert all(f"| `{name}` |" in page for name in shown)


def test_a_range_is_what_the_class_refuses() -> None:
    keys = {(group.title, key.name): key for group in configuration.groups() for key in group.keys}
    assert keys["`train`", "train.lr"].range == "above 0"
    assert keys["CapsNet", "conv1_channels"].range == "at least 1"
    assert keys["Image model: `cnn`", "strides"].default == "[2, 2, 1, 1]"
    assert keys["Image model: `part_encoder`", "n_part_caps"].source == "original's flag `--n_part_caps`"
    assert keys["Image model: `cnn`", "residual_blocks"].source == "ours"


def test_every_command_option_and_exit_code_is_on_its_page() -> None:
    page = command_line.commands_page()
    names = set(cli.main.command.commands)
    assert names >= {"train", "convert", "verify", "record", "inspect", "bench"}
    for name, command in command_line.commands().items():
        section = page.partition(f"\n## scae {name}\n")[2].partition("\n## ")[0]
        assert section, name
        assert all(option in section for parameter in command.params for option in parameter.opts
                   if option.startswith("-"))
    stages = {f"pipelines.{path.stem}" for path in (REPOSITORY / "pipelines").glob("*.py")
              if "main = Program(" in path.read_text()} - {"pipelines.cli"}
    assert stages <= set(command_line.programs()) and len(stages) >= 7
    codes = command_line.exit_codes_page()
    assert all(f"| `{code}` |" in codes for code in console.EXIT_CODES) and len(console.EXIT_CODES) == 7
    assert set(python_api.names()) == set(port.__all__)


def test_every_quirk_has_its_paragraph() -> None:
    text = (DOCS / "explanation/quirks.md").read_text()
    assert re.findall(r"^### (Q\d\d):", text, re.M) == list(QUIRKS)
    assert pages.with_facts(text).count("<small>In `port/") == len(QUIRKS)
    assert not [path for path in (f"port/{quirk.file}" for quirk in QUIRKS.values())
                if not (REPOSITORY / path).exists()]


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks as one program, on a run of one step; the conversion is that of its third section, unproven."""
    with monkeypatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(stage, "RUNS", tmp_path / "runs")
        stage.run(test_train_stage.preset("train.steps=1"), 0, tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    first, *others = re.findall(r"^```python\n(.*?)^```$", (DOCS / "tutorial.md").read_text(), re.M | re.S)
    names: dict = {"__name__": "tutorial"}
    exec(compile(first, "tutorial.md", "exec"), names)
    assert cli.main(["convert", "tutorial/model.ckpt-3200", "tutorial/OUT", "--no-verify", "--config",
                     "results/train/digits/0/model/config.json"]) == 0
    assert len(others) == 3
    for block in others:
        exec(compile(block, "tutorial.md", "exec"), names)
    assert Path("tutorial/clusters.png").stat().st_size > 10_000


def test_the_notebook_is_the_tutorial() -> None:
    """Every block and command of the page is a cell, in its order; the text holds no link that leads nowhere."""
    page = (DOCS / "tutorial.md").read_text()
    made = json.loads(notebook.notebook())["cells"]
    code = [cell["source"] for cell in made if cell["cell_type"] == "code"]
    blocks = [block.strip("\n") for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)]
    assert [source for source in code if source in blocks] == blocks
    commands = re.findall(r"^    ((?:scae|dvc) .*)$", page, re.M)
    assert [source for source in code if source.startswith("!")] == [f"!{command}" for command in commands]
    assert len(code) == len(blocks) + len(commands) + 1 and code[-1].endswith('Image("tutorial/clusters.png")')
    text = "".join(cell["source"] for cell in made if cell["cell_type"] == "markdown")
    assert "done and proven" in text and "](" not in text and len({cell["id"] for cell in made}) == len(made)


@pytest.mark.deep
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tier: str) -> None:
    """In a kernel of its own, all commands too, on a run of one step in place of the one that `dvc repro` trains."""
    if tier != "deep":
        pytest.skip("deep tier: a kernel of its own, and a conversion with its proof")
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    with monkeypatch.context() as patch:
        patch.chdir(REPOSITORY)
        patch.setattr(stage, "RUNS", tmp_path / "runs")
        stage.run(test_train_stage.preset("train.steps=1"), 0, tmp_path / "results")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    book = nbformat.reads(notebook.notebook(), as_version=4)
    nbformat.validate(book)
    for cell in book.cells:
        # That run is of another size than the preset; its own settings say what --preset would.
        cell.source = cell.source.replace("!dvc repro train", "").replace(
            "--preset digits", "--config results/train/digits/0/model/config.json")
    nbclient.NotebookClient(book, timeout=600, allow_errors=True,
                            resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    failed = [output for cell in book.cells for output in cell.get("outputs", ()) if output.output_type == "error"]
    assert not failed and "done and proven" in said and "lie in the cluster of their class" in said, said
    assert any("image/png" in output.get("data", {}) for cell in book.cells for output in cell.get("outputs", ()))


@pytest.mark.deep
def test_the_site_builds_and_fetches_nothing(tmp_path: Path, tier: str) -> None:
    """Strictly: no link to nowhere; and no script, style, font or picture of another host."""
    if tier != "deep":
        pytest.skip("deep tier: builds the whole site")
    own = REPOSITORY / ".venv-site/bin/mkdocs"
    builder = str(own) if own.exists() else shutil.which("mkdocs")
    if builder is None:
        pytest.skip("no mkdocs: `make env-site` sets it up")
    pages.gather()
    done = subprocess.run([builder, "build", "--strict", "--site-dir", str(tmp_path / "site")], cwd=REPOSITORY,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    built = sorted((tmp_path / "site").rglob("*.html"))
    assert {path.relative_to(tmp_path / "site").with_suffix(".md").as_posix() for path in built} >= set(navigation())
    for path in built:
        remote = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*",
                            path.read_text())
        assert not [tag for tag in remote if "rel=\"canonical\"" not in tag], path
    assert "<math" in (tmp_path / "site/explanation/model.html").read_text()
