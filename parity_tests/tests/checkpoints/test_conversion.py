"""`scae inspect` and `convert` as a user types them: results, refusals, exit codes."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

import port
import reference
from parity_tests import goldens
from parity_tests.goldens import Golden
from parity_tests.harness import models, tolerances
from parity_tests.harness.converted import FIXTURE, ckpt, convert_fixture, refused
from pipelines import cli, report
from pipelines import convert as stage
from pipelines.checkpoints import original
from pipelines.support import sections
from port.checkpoints import model_folder
from port.core import rmsprop, tensor_files

GOLDENS = goldens.models()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted fixture; not to be changed."""
    return convert_fixture(tmp_path_factory.mktemp("converted") / "out")


@pytest.mark.golden
@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.name)
def test_convert_and_verify(golden: Golden, tmp_path: Path, tier: str, capsys: pytest.CaptureFixture
                            ) -> None:
    """Converted, proven, held to the recording, and back to TensorFlow in every bit."""
    if tier != "deep" and golden is not FIXTURE:
        pytest.skip("deep tier: one recording here, another in test_stage")
    out, back = tmp_path / "out", tmp_path / "deep" / "model.ckpt-1"
    assert cli.main(["convert", ckpt(golden), str(out), "--config", str(golden.folder)]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert "done and proven" in last and "float32" in last and "unverified" not in last
    assert "verified: " in (out / "README.md").read_text()
    table = tmp_path / "report.json"
    assert cli.main(["verify", ckpt(golden), str(out), "--golden", str(golden.folder), "--json",
                     str(table), "--html", str(tmp_path / "report.html")]) == 0
    found = json.loads(table.read_text())
    assert found["verdict"] == "pass" and found["rows"]["fail"] == 0
    sides = {row["side"] for section in found["sections"] for row in section["rows"]}
    assert sides == {"port", "reference"}
    page = (tmp_path / "report.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "") and "part_enc/pose" in page
    assert cli.main(["convert", "--to", "tf", str(out), str(back)]) == 0
    source, again = reference.read_checkpoint(ckpt(golden)), reference.read_checkpoint(back)
    _, _, skipped = port.convert.split_checkpoint(source)
    assert set(again) == set(source) - (set(skipped) - {"global_step"})
    for name, value in again.items():
        assert value.dtype == source[name].dtype and value.tobytes() == source[name].tobytes(), name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "out", "report.html", "report.json"]


def test_stage(tmp_path: Path, tier: str) -> None:
    """The DVC stage: the committed checkpoint of params.yaml, proven and held to its recording."""
    if tier == "smoke":
        pytest.skip("smoke tier: test_convert_and_verify has a fixture")
    assert stage.main(["--results", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "convert" / "metrics.json").read_text())
    assert metrics["rows"]["fail"] == 0 and metrics["worst"]["port float64"]["of_bound"] < 1
    page = report.render("report.html", report.gather(sections.Report(), tmp_path))
    assert "recorded as\n<code>enc_linear</code>" in page and "history_ckpt_noise.npz" in page


@pytest.mark.golden
def test_training_continues(converted: Path) -> None:
    """From the folder alone (weights, slots, step) the recorded steps are repeated."""
    model = port.load(converted).double()
    manifest = FIXTURE.manifest
    optimizer = rmsprop.RMSProp(model.parameters(), lr=manifest["lr"], epsilon=manifest["rmsprop"]["epsilon"])
    assert model_folder.continue_from(converted, model, optimizer) == 20
    batches, noise = FIXTURE.load("batches.npz"), FIXTURE.load("noise_samples.npz")
    for i in range(5):
        models.forward("port", model, batches["image"][i], batches["label"][i],
                       [noise[f"raw_{j}"][i] for j in range(3)], "float64", taps=False)
        optimizer.step()
    bound = tolerances.step_bounds(manifest).variable_max
    for name, value in FIXTURE.load("vars_ckpt_after5.npz").items():
        assert tolerances.error(port.to_tf(model)[name], value) <= bound, name


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Every variable in its group, the architecture, what is missing; as text and as JSON."""
    target = tmp_path / "facts.json"
    assert cli.main(["inspect", ckpt(FIXTURE), "--json", str(target)]) == 0
    text, facts = capsys.readouterr().out, json.loads(target.read_text())
    assert {"model": "scae", "n_part_caps": 4, "n_obj_caps": 3, "template_size": 7, "n_channels": 1,
            "canvas_sizes": [27, 28, 29, 30], "slots": True, "step": 20, "parameters": 11182
            }.items() <= facts.items()
    assert facts["unknown"][:3] == ["template_nonlin", "color_nonlin", "canvas_size"]
    assert "set_transformer/linear/w" in text and "optimizer slots: 194 arrays" in text
    arrays = reference.read_checkpoint(ckpt(FIXTURE))
    averages = {f"{tensor}/ExponentialMovingAverage{end}": np.float32(2)
                for tensor in ("unstack", "add_3", "Reshape")
                for end in ("", "_1", "/biased", "_1/biased", "/local_step", "_1/local_step")}
    reference.write_checkpoint(tmp_path / "model.ckpt-20", arrays | averages)
    assert cli.main(["inspect", str(tmp_path), "--json", str(target)]) == 0
    assert set(json.loads(target.read_text())["skipped"]) == set(averages)
    reference.write_checkpoint(tmp_path / "other" / "x", {"dense/kernel": np.zeros((2, 3), np.float32)})
    assert "none of the original's" in refused(capsys, "inspect", str(tmp_path / "other"))


@pytest.mark.golden
@pytest.mark.parametrize("golden", goldens.constellations(), ids=lambda golden: golden.name)
def test_constellation(golden: Golden, tmp_path: Path, tier: str, capsys: pytest.CaptureFixture) -> None:
    """A constellation checkpoint converts with nothing given; in the deep tier held to its recording."""
    facts, out = tmp_path / "facts.json", tmp_path / "out"
    assert cli.main(["inspect", ckpt(golden), "--json", str(facts)]) == 0
    found = json.loads(facts.read_text())
    assert (found["model"], found["n_obj_caps"], found["required"]) == ("constellation", 3, {})
    unproven = [] if tier == "deep" else ["--no-verify"]
    assert cli.main(["convert", ckpt(golden), str(out), *unproven]) == 0
    assert port.load(out).config.unset
    if tier == "deep":
        assert cli.main(["verify", ckpt(golden), str(out), "--golden", str(golden.folder)]) == 0
    message = refused(capsys, "convert", ckpt(golden), str(out), "--config", str(FIXTURE.folder))
    assert "'scae'" in message and "'constellation'" in message


def test_configurations(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What must be given is asked for; what is given must fit; nothing is written before."""
    out, config = str(tmp_path / "out"), tmp_path / "config.json"
    told = {"template_nonlin": "sigmoid", "color_nonlin": "sigmoid", "canvas_size": 29}
    assert all(name in refused(capsys, "convert", ckpt(FIXTURE), out) for name in told)
    for wanted, message in (
            ({k: v for k, v in told.items() if k != "canvas_size"}, "canvas_size (27, 28, 29 or 30)"),
            (told | {"n_obj_caps": 4}, "n_obj_caps is 4, the checkpoint has 3"),
            (told | {"vote_type": "enc"}, "vote_type is enc, the checkpoint has soft"),
            (told | {"canvas_size": 40}, "canvas_size 40 contradicts"),
            (told | {"colour": 1}, "unknown key 'colour'"),
            (told | {"template_size": "big"}, "template_size"),
            (told | {"output_channels": 7}, "output_channels"),
            ([1, 2], "expected keys and values")):
        config.write_text(json.dumps(wanted))
        assert message in refused(capsys, "convert", ckpt(FIXTURE), out, "--config", str(config)), wanted
    config.write_bytes(b"\xff\xfe\x00")
    assert "no UTF-8 text" in refused(capsys, "convert", ckpt(FIXTURE), out, "--config", str(config))
    nowhere = str(tmp_path / "none")
    assert "no such file" in refused(capsys, "convert", ckpt(FIXTURE), out, "--config", nowhere)
    assert "did you mean 'mnist'" in refused(capsys, "convert", ckpt(FIXTURE), out, "--preset", "mnst")
    assert "contradicts" in refused(capsys, "convert", ckpt(FIXTURE), out, "--preset", "mnist")
    assert not Path(out).exists()
    config.write_text("".join(f"{name}: {value}\n" for name, value in told.items()) + "weight_decay: 0.1\n")
    assert cli.main(["convert", ckpt(FIXTURE), out, "--config", str(config), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "object_encoder.linear.0.weight [8, 59] + slots" in text and not Path(out).exists()
    assert cli.main(["convert", ckpt(FIXTURE), out, "--config", str(config), "--no-verify"]) == 0
    assert "unverified" in capsys.readouterr().out.strip().splitlines()[-1]
    assert "unverified" in (Path(out) / "README.md").read_text()
    stored = json.loads((Path(out) / "config.json").read_text())
    assert stored["autoencoder"]["dynamic_l2_weight"] == "unset"
    assert stored["autoencoder"]["weight_decay"] == 0.1 and stored["autoencoder"]["vote_type"] == "soft"
    message = refused(capsys, "verify", ckpt(FIXTURE), out, "--golden", str(FIXTURE.folder))
    assert "weight_decay is 0.1 in the folder, 0.0 in the recording" in message


def test_bad_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Missing, truncated, half a pair, a hostile `checkpoint` file: one line each."""
    assert "no checkpoint there" in refused(capsys, "inspect", str(tmp_path / "none"))
    assert "no .index file" in refused(capsys, "inspect", str(tmp_path))
    data, index = (next(Path(ckpt(FIXTURE)).glob(pattern)) for pattern in ("*.data*", "*.index"))
    (tmp_path / index.name).write_bytes(index.read_bytes())
    assert "cannot be read" in refused(capsys, "inspect", str(tmp_path))
    (tmp_path / data.name).write_bytes(data.read_bytes()[:-100])
    assert "cannot be read" in refused(capsys, "inspect", str(tmp_path))
    (tmp_path / data.name).write_bytes(data.read_bytes())
    for hostile in ("../elsewhere/model.ckpt-20", f"{ckpt(FIXTURE)}/model.ckpt-20", "/etc/passwd"):
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{hostile}"\n')
        assert "not in this folder" in refused(capsys, "inspect", str(tmp_path))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/run/of/another/machine/model.ckpt-20"\n')
    assert cli.main(["inspect", str(tmp_path)]) == 0


def test_bad_targets(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                     monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, no permission, Ctrl-C, strangers in the folder: nothing half-written, nothing lost."""
    out = tmp_path / "out"
    convert = ["convert", ckpt(FIXTURE), str(out), "--config", str(FIXTURE.folder), "--no-verify"]

    def fail(error: BaseException) -> None:
        def raising(*arguments: object, **keywords: object) -> None:
            raise error
        monkeypatch.setattr(tensor_files, "write", raising)

    fail(OSError(errno.ENOSPC, "No space left on device"))
    assert "No space left on device" in refused(capsys, *convert)
    fail(PermissionError(errno.EACCES, "Permission denied", str(out)))
    assert "Permission denied" in refused(capsys, *convert)
    fail(KeyboardInterrupt())
    assert cli.main(convert) == 130
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(capsys, "convert", ckpt(FIXTURE), str(tmp_path / "file"), *convert[3:])
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert "notes.txt, which would be lost" in refused(capsys, *convert)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    (out / "notes.txt").unlink()
    (out / "README.md").write_text("an older conversion")
    assert cli.main(convert) == 0 and len(list(out.iterdir())) == 4
    prefix = str(tmp_path / "back" / "model.ckpt-7")
    assert cli.main(["convert", "--to", "tf", str(converted), prefix]) == 0
    assert "already" in refused(capsys, "convert", "--to", "tf", str(converted), prefix)
    assert "is a folder" in refused(capsys, "convert", "--to", "tf", str(converted), str(tmp_path))
    assert "no config.json" in refused(capsys, "convert", "--to", "tf", str(tmp_path), prefix + "1")
    assert "did you mean 'torch'" in refused(capsys, *convert, "--to", "toch")


def test_nonfinite(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """NaN in weights is refused, unless wanted; then it comes out where it was."""
    arrays = reference.read_checkpoint(ckpt(FIXTURE))
    name = "set_transformer/linear/b"
    arrays[name] = np.array(arrays[name])
    arrays[name][2] = np.nan
    reference.write_checkpoint(tmp_path / "model.ckpt-20", arrays)
    convert = ["convert", str(tmp_path), str(tmp_path / "out"), "--config", str(FIXTURE.folder)]
    message = refused(capsys, *convert)
    assert f"{name} has 1 entries" in message and "--allow-nonfinite" in message
    assert cli.main([*convert, "--allow-nonfinite", "--no-verify"]) == 0
    model = port.load(tmp_path / "out")
    assert port.to_tf(model)[name].tobytes() == arrays[name].tobytes()


def test_formats(tmp_path: Path) -> None:
    """V1, sharded V1 and sharded V2, by prefix and by folder: the same arrays."""
    import tensorflow as tf
    arrays = reference.read_checkpoint(ckpt(FIXTURE))
    names = list(arrays)
    shards = [names[k::2] for k in range(2)]

    def tensors(part: list[str]) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(arrays[name]) for name in part]

    for folder in ("v1", "v1_sharded", "v2_sharded"):
        (tmp_path / folder).mkdir()
    prefix = "model.ckpt-20"
    tf.raw_ops.Save(filename=str(tmp_path / "v1" / prefix), tensor_names=names, data=tensors(names))
    for k, part in enumerate(shards):
        tf.raw_ops.Save(filename=str(tmp_path / "v1_sharded" / f"{prefix}-0000{k}-of-00002"),
                        tensor_names=part, data=tensors(part))
        tf.raw_ops.SaveV2(prefix=str(tmp_path / "v2_sharded" / f"part{k}"), tensor_names=part,
                          shape_and_slices=[""] * len(part), tensors=tensors(part))
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "v2_sharded" / f"part{k}") for k in range(2)],
        destination_prefix=str(tmp_path / "v2_sharded" / prefix))
    digests = set()
    for folder in ("v1", "v1_sharded", "v2_sharded"):
        for path in (tmp_path / folder, tmp_path / folder / prefix):
            found = original.read(path)
            assert set(found.arrays) == set(arrays)
            assert all(found.arrays[name].tobytes() == arrays[name].tobytes() for name in names)
            digests.add(found.digest)
    assert len(digests) == 3
    for shard in (f"v1_sharded/{prefix}-00001-of-00002", f"v2_sharded/{prefix}.data-00001-of-00002"):
        (tmp_path / shard).unlink()
        with pytest.raises(reference.CheckpointError, match="cannot be read"):
            reference.read_checkpoint((tmp_path / shard).parent)
