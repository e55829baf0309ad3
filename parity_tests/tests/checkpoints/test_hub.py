"""Model cards as hubs read them, and folders under the names that hubs give to saving and loading."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

import port
from parity_tests import goldens
from parity_tests.harness import every_family
from pipelines import cli
from port.checkpoints import run_folder
from port.checkpoints.tensor_bundle.errors import CheckpointError
from port.data.dataset import DataError

CHECKPOINT = goldens.HERE / "fixtures/goldens/options/enc_linear/checkpoint"


def head(folder: Path) -> dict:
    """The YAML head of a card, which is followed by a title."""
    empty, text, body = (folder / "README.md").read_text().split("---\n", 2)
    assert not empty and body.startswith("\n# ")
    return yaml.safe_load(text)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Equal configuration, and weights equal in every bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return one.config == other.config and set(ours) == set(theirs) and all(
        torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("family", ["pcae", "capsnet"])
def test_a_folder_needs_no_hub(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved and loaded without the package, with the card's head; load and from_pretrained are one."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    model = every_family.model(family)
    port.save_pretrained(model, tmp_path / "out")
    found = port.from_pretrained(tmp_path / "out")
    assert same(found, model) and same(port.load(tmp_path / "out"), model) and not found.training
    card = head(tmp_path / "out")
    assert card["library_name"] == "scae-port" and card["license"] == "unknown" and "metrics" not in card
    assert {"pytorch", "capsule-networks"} <= set(card["tags"])
    assert "licence of these weights was not stated" in (tmp_path / "out/README.md").read_text()


def test_what_was_measured_is_in_the_card(tmp_path: Path) -> None:
    port.save(every_family.model("pcae"), tmp_path, "A note.", license="mit", metrics={"acc: top": 0.987654321})
    card, text = head(tmp_path), (tmp_path / "README.md").read_text()
    assert card["license"] == "mit" and card["metrics"] == ["acc: top"]
    assert "| acc: top | 0.987654 |" in text and "A note." in text and "not stated" not in text


def test_the_card_of_a_run_says_what_was_measured(tmp_path: Path) -> None:
    """Held-out numbers of training, and of the evaluation where it was of these weights; nothing else, or nothing."""
    run, evaluated = tmp_path / "train/digits/0", tmp_path / "evaluate/digits/0/metrics.json"
    for folder in (run / "model", evaluated.parent):
        folder.mkdir(parents=True)
    assert run_folder.measured(run) == {}
    (run / "metrics.json").write_text(json.dumps({"loss": 3.0, "held_out_rec_ll": -2.0, "held_out_acc": None}))
    (run / "environment.json").write_text(json.dumps({"weights": "abc"}))
    final = {"rec_ll": -1.0, "posterior_kmeans": {"value": 0.5}, "prior_probe": {"value": None}}
    for weights, more in (("other", {}), ("abc", {"test_posterior_kmeans": 0.5})):
        evaluated.write_text(json.dumps({"weights": weights, "protocols": {"clean": {"final": final}}}))
        assert run_folder.measured(run) == {"held_out_rec_ll": -2.0} | more
    evaluated.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        run_folder.measured(run)


def test_the_committed_run_was_evaluated() -> None:
    """The names are those that both stages write."""
    assert {"held_out_posterior_probe", "test_posterior_kmeans"} <= set(
        run_folder.measured(goldens.REPOSITORY / "results/train/digits/0"))


def test_a_converted_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It loads, its card has the head, and a licence that is none is refused before anything is written."""
    words = ["convert", str(CHECKPOINT), str(tmp_path / "out"), "--config", str(CHECKPOINT.parent / "manifest.json"),
             "--no-verify"]
    assert cli.main([*words, "--license", "My own: licence"]) == 2
    assert "--license: 'My own: licence' names no licence" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert cli.main([*words, "--license", "apache-2.0"]) == 0
    assert head(tmp_path / "out")["license"] == "apache-2.0"
    assert same(port.from_pretrained(tmp_path / "out"), port.load(tmp_path / "out"))


@pytest.mark.parametrize(("name", "says"), [
    ("./nowhere", "there is no such folder"), ("a/b/c", "there is no such folder"),
    ("owner/model", "needs the package huggingface_hub: pip install")])
def test_what_is_not_there(name: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=says):
        port.from_pretrained(name)


def test_an_upload_without_the_package_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match="an upload needs the package huggingface_hub"):
        port.save_pretrained(every_family.model("pcae"), tmp_path / "out", push_to_hub=True)
    assert not (tmp_path / "out").exists()


def test_up_and_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked of the package, which a stand-in answers: the model's files alone go up and come back."""
    asked: list[tuple] = []

    class Api:
        def create_repo(self, repo_id: str, exist_ok: bool) -> SimpleNamespace:
            return SimpleNamespace(repo_id=f"owner/{repo_id}")

        def upload_folder(self, repo_id: str, folder_path: str, allow_patterns: list[str]) -> None:
            asked.append((repo_id, sorted(allow_patterns)))

    def download(name: str, revision: str, **more) -> str:
        if name != "owner/out":
            raise OSError("404")
        asked.append((name, revision))
        return str(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=Api, snapshot_download=download))
    model = every_family.model("pcae")
    port.save_pretrained(model, tmp_path / "out", push_to_hub=True)
    assert same(port.from_pretrained("owner/out", revision="main"), model)
    assert asked == [("owner/out", sorted(port.checkpoint.FILES)), ("owner/out", "main")]
    with pytest.raises(CheckpointError, match=r"not to be had from the hub \(404\)"):
        port.from_pretrained("owner/other")


def test_the_package_reads_the_card(tmp_path: Path) -> None:
    """Where it is installed: its own reading of the head, and its answer without a network."""
    hub = pytest.importorskip("huggingface_hub")
    port.save(every_family.model("pcae"), tmp_path / "out", license="mit", metrics={"accuracy": 0.5})
    card = hub.ModelCard.load(tmp_path / "out/README.md").data
    assert (card.library_name, card.license, card.metrics) == ("scae-port", "mit", ["accuracy"])
    with pytest.raises(CheckpointError, match="not to be had from the hub"):
        port.from_pretrained("owner/model", cache_dir=tmp_path / "cache", local_files_only=True)
