"""`scae verify` and `record`: they accept what is right and name the first place that is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import port
import reference
from parity_tests import goldens
from parity_tests.harness.converted import FIXTURE, ckpt, convert_fixture, copy, refused
from pipelines import cli
from pipelines.checkpoints.comparison import Report
from pipelines.commands import record
from pipelines.support.values import BadInput


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted fixture; not to be changed."""
    return convert_fixture(tmp_path_factory.mktemp("converted") / "out")


def test_says_no(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                 monkeypatch: pytest.MonkeyPatch) -> None:
    """One tensor transposed, one op of a side patched: exit 1, naming the place."""
    def failed(out: Path) -> str:
        capsys.readouterr()
        assert cli.main(["verify", ckpt(FIXTURE), str(out)]) == 1
        return capsys.readouterr().err

    state = load_file(converted / "model.safetensors")
    square = "object_encoder.attention.linear.1.weight"
    other = copy(converted, tmp_path / "transposed", {square: state[square].T.contiguous()})
    assert "set_transformer/multi_head_qkv_attention/linear_1/w of the port" in failed(other)
    slots = load_file(converted / "optimizer.safetensors")
    other = copy(converted, tmp_path / "slots")
    slots[f"{square}/mom"] = slots[f"{square}/mom"] + 1e-7
    save_file(slots, other / "optimizer.safetensors")
    assert "multi_head_qkv_attention/linear_1/w/RMSProp_1 of the port" in failed(other)
    with monkeypatch.context() as patch:
        from reference.core import mixture
        right = mixture.mixture_mean
        patch.setattr(mixture, "mixture_mean", lambda *a, **k: right(*a, **k) * (1 + 1e-9))
        assert "part_dec/mean of the port (float64)" in failed(converted)
    with monkeypatch.context() as patch:
        from port.core import ops
        transform = ops.geometric_transform
        patch.setattr(ops, "geometric_transform", lambda *a, **k: transform(*a, **k) + 1e-9)
        assert "part_enc/pose of the port (float64)" in failed(converted)


@pytest.mark.golden
def test_golden_says_no(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
                        monkeypatch: pytest.MonkeyPatch) -> None:
    """An altered tap, gradient or step of a recording, or a patched op of the reference: exit 1."""
    def failed(*files: str, **changed: float) -> str:
        folder = tmp_path / f"golden{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for file in ("manifest.json", "batches.npz", "noise_samples.npz", *files):
            (folder / file).write_bytes((FIXTURE.folder / file).read_bytes())
        for name, factor in changed.items():
            arrays = dict(np.load(folder / files[0]))
            arrays[name] = arrays[name] * np.asarray(factor, arrays[name].dtype)
            np.savez(folder / files[0], **arrays)
        capsys.readouterr()
        assert cli.main(["verify", ckpt(FIXTURE), str(converted), "--golden", str(folder)]) == 1
        return capsys.readouterr().err

    name = "obj_enc/output"
    assert f"{name} of the reference" in failed("forward64_noise.npz", **{name: 1 + 1e-9})
    assert f"{name} of the" in failed("forward_noise.npz", **{name: 1.01})
    name = "var/set_transformer/linear/w"
    assert f"{name} of the reference" in failed("grads64_noise.npz", **{name: 1 + 1e-9})
    assert "loss/total before update 0" in failed("history_ckpt_noise.npz", **{"loss/total": 1 + 1e-5})
    with monkeypatch.context() as patch:
        from reference.core import mixture
        right = mixture.mixture_mean
        patch.setattr(mixture, "mixture_mean", lambda *a, **k: right(*a, **k) * (1 + 1e-3))
        assert "bottom_up/mean of the reference (float64)" in failed("forward64_noise.npz")
        # With float32 alone both sides run in float64 too, or the patch would widen its own bound.
        assert "part_dec/mean of the port (float64)" in failed("forward_noise.npz")


@pytest.mark.golden
def test_partial_goldens(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What is there is used, what is not is named; nothing usable is bad input; no slots, no steps."""
    folder = tmp_path / "golden"
    folder.mkdir()
    verify = ["verify", ckpt(FIXTURE), str(converted), "--golden", str(folder)]
    assert "no manifest.json" in refused(capsys, *verify)
    (folder / "manifest.json").write_bytes((FIXTURE.folder / "manifest.json").read_bytes())
    assert "no batches.npz" in refused(capsys, *verify)
    (folder / "batches.npz").write_bytes((FIXTURE.folder / "batches.npz").read_bytes())
    assert "none of its files" in refused(capsys, *verify)
    with np.load(FIXTURE.folder / "forward64_noise.npz") as full:
        np.savez(folder / "forward64_noise.npz", **{name: full[name] for name in full.files
                                                    if name.startswith(("noise/", "part_enc/p", "loss/"))})
    assert cli.main(verify) == 0
    text = capsys.readouterr().out
    assert "not in forward64_noise.npz" in text and "res/rec_ll" in text and "grads64_noise.npz" in text
    bare = tmp_path / "bare"
    arrays = reference.read_checkpoint(ckpt(FIXTURE))
    reference.write_checkpoint(bare / "model.ckpt-20", {
        name: value for name, value in arrays.items() if "RMSProp" not in name})
    out = tmp_path / "out"
    assert cli.main(["convert", str(bare), str(out), "--config", str(FIXTURE.folder), "--no-verify"]) == 0
    assert not (out / "optimizer.safetensors").exists()
    for file in ("noise_samples.npz", "history_ckpt_noise.npz", "vars_ckpt_after5.npz"):
        (folder / file).write_bytes((FIXTURE.folder / file).read_bytes())
    assert cli.main(["verify", str(bare), str(out), "--golden", str(folder)]) == 0
    text = capsys.readouterr().out
    assert text.count("not comparable: no slots") == 2
    assert "loss/total before update 0" in text and "before update 1" not in text
    (folder / "forward64_noise.npz").write_bytes(b"PK no archive")
    assert "cannot be read" in refused(capsys, *verify)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["arguments"]["autoencoder"]["weight_decay"] = 0.3
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "weight_decay" in refused(capsys, *verify)


def test_the_worst_of_a_report() -> None:
    """Relative to the largest entry, in units of the type, and as a share of the bound; equal tensors have none."""
    report = Report("x")
    section = report.section("a pass", "the recording")
    one = section.add("one", "port", "float32", np.array([1.0, 2.5]), np.array([1.0, 2.0]), 1.0)
    other = section.add("other", "port", "float32", np.array([10.0]), np.array([8.0]), 1.5)
    section.add("same", "reference", "float64", np.array([3.0]), np.array([3.0]))
    assert (one.max_abs, one.max_rel, one.ulp, one.verdict) == (0.5, 0.25, 0.5 / 2 ** -22, "pass")
    assert (other.max_rel, other.verdict) == (0.25, "fail")
    assert report.worst() == {"port float32": {"max_rel": 0.25, "of_bound": 2.0 / 1.5}}
    assert report.counts() == {"exact": 1, "pass": 1, "fail": 1}


def test_record(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch,
                tier: str) -> None:
    """A folder from the reference that verify accepts and the suite's readers find."""
    if tier == "smoke":
        pytest.skip("smoke tier: recordings of the original")
    for dtype in ("float64", "float32") if tier == "deep" else ("float64",):
        folder, out = tmp_path / dtype / "mine", tmp_path / f"out_{dtype}"
        assert cli.main(["record", ckpt(FIXTURE), str(folder), "--dtype", dtype, "--config",
                         str(FIXTURE.folder)]) == 0
        assert cli.main(["convert", str(folder / "checkpoint"), str(out), "--config", str(folder),
                         "--no-verify"]) == 0
        assert cli.main(["verify", str(folder / "checkpoint"), str(out), "--golden", str(folder)]) == 0
        text = capsys.readouterr().out
        assert "history_ckpt.npz, held to the recording" in text and "vars_ckpt_after5.npz" in text
    monkeypatch.setenv("SCAE_GOLDENS", str(tmp_path / "float64"))
    golden = {golden.name: golden for golden in goldens.models()}["mine"]
    from parity_tests.goldens.verify_models import verify_golden
    assert verify_golden(golden, "noise", "float64", "port") < 1.0
    assert golden.manifest["no_gradient"] == [] and golden.manifest["lr"] == FIXTURE.manifest["lr"]
    assert "would be lost" in refused(capsys, "record", ckpt(FIXTURE), str(tmp_path / "float64" / "mine"),
                                      "--config", str(FIXTURE.folder))


def test_record_batches(tmp_path: Path) -> None:
    """Images of one's own; what does not fit is refused."""
    config, file = port.config.from_manifest(FIXTURE.folder), tmp_path / "batch.npz"

    def batches(**arrays: np.ndarray) -> dict[str, np.ndarray]:
        np.savez(file, **arrays)
        return record.read_batches(str(file), config)

    with pytest.raises(BadInput, match="cannot be read"):
        record.read_batches(str(file), config)
    image, label = np.full((2, 29, 29, 1), 0.5, np.float32), np.array([1, 2])
    for arrays, message in (({"label": label}, "no array 'image'"), ({"image": image}, "no array 'label'"),
                            ({"image": image[:, 1:], "label": label}, "expected .batches"),
                            ({"image": image * 4, "label": label}, "floating numbers from 0 to 1"),
                            ({"image": image, "label": label + 9}, "from 0 to 9")):
        with pytest.raises(BadInput, match=message):
            batches(**arrays)
    assert batches(image=image, label=label)["image"].shape == (5, 2, 29, 29, 1)
    assert batches(image=image[None], label=label[None])["label"].shape == (1, 2)
