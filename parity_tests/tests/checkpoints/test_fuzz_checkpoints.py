"""A real checkpoint, damaged in hundreds of seeded ways, all in this process.

Checksums notice nearly all blind damage, so most damages here are written anew with valid ones: they are
what only this project can notice. A structural change must end in exit code 2 with one line and no folder;
a changed value must come out as exactly that value; nothing else. What TensorFlow's own reader refuses is
refused.
"""

from __future__ import annotations

import collections
import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import port
import reference
from parity_tests import goldens
from pipelines import cli
from port.checkpoints import convert, model_folder

N_REWRITTEN = 8 * 40
N_BLIND = 6 * 34

FIXTURES = [golden for golden in goldens.models() if golden.folder.is_relative_to(goldens.HERE)]
FIXTURE = next(golden for golden in FIXTURES if golden.name.endswith("vote_soft"))
SOURCE = FIXTURE.folder / "checkpoint"
PREFIX = "model.ckpt-20"

Arrays = dict[str, np.ndarray]


@functools.cache
def other_head() -> Arrays:
    """A recorded model with another head; most of its arrays have the same shapes."""
    golden = next(golden for golden in FIXTURES if golden.name.endswith("enc_linear"))
    return reference.read_checkpoint(golden.folder / "checkpoint")


@functools.cache
def other_sizes() -> Arrays:
    """A model whose sizes are all others."""
    return port.to_tf(port.ImageAutoencoder(port.config.from_flat({
        "canvas_size": 20, "strides": [2, 1], "output_channels": [5, 6], "n_part_caps": 7, "n_obj_caps": 9,
        "n_hiddens": 5, "n_output_dims": 11, "n_dims": 6, "n_heads": 2, "template_size": 3,
        "n_part_special_features": 4, "n_obj_caps_params": 3, "colorize_templates": True})))


OTHERS = (other_head, other_sizes)
Outcome = tuple[Arrays, str]  # arrays to write, and what must happen: refused or converted


def rename(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """Another name, near the right one or far from it."""
    scope, _, last = name.rpartition("/")
    new = [name + "_0", name + "x", name.upper(), f"scae/{name}", f"{scope}_7/{last}", f"{name}/Adam",
           f"{scope}/{last}/ExponentialMovingAverage_1x", name.replace("linear", "linear_0"),
           name.replace("self_attention", "self_attention_9")]
    new = [candidate for candidate in new if candidate not in arrays]
    arrays[new[rng.integers(len(new))]] = arrays.pop(name)
    return arrays, "refused"


def drop(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """One array less."""
    del arrays[name]
    return arrays, "refused"


def double(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """The same array under a second name."""
    new = [name + "_1", name + "_copy", f"{name}/{name}", name.replace("/", "_1/", 1), f"x/{name}",
           name.replace("linear/", "linear_0/"), name.replace("conv_2d_0", "conv_2d")]
    new = [candidate for candidate in new if candidate not in arrays]
    arrays[new[rng.integers(len(new))]] = arrays[name]
    return arrays, "refused"


def reshape(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """As many numbers in another shape."""
    array = arrays[name]
    shapes = {(array.size,), (1, *array.shape), (*array.shape, 1), array.shape[::-1],
              (array.size // 2, 2) if array.size % 2 == 0 else (array.size, 1), tuple(sorted(array.shape))}
    shapes = sorted(shapes - {array.shape})
    arrays[name] = array.reshape(shapes[rng.integers(len(shapes))])
    return arrays, "refused"


def retype(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """Another dtype."""
    kinds = [kind for kind in (np.float64, np.float16, np.int32, np.int8, np.complex64)
             if kind != arrays[name].dtype]
    arrays[name] = arrays[name].astype(kinds[rng.integers(len(kinds))])
    # A step of int32 is some programs' own; it is taken and said.
    fits = name == "global_step" and arrays[name].dtype == np.int32
    return arrays, "converted" if fits else "refused"


def poison(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """One NaN or infinity."""
    name = name if name != "global_step" else "set_transformer/linear/w"
    array = arrays[name].copy()
    array.flat[rng.integers(array.size)] = [np.nan, np.inf, -np.inf][rng.integers(3)]
    arrays[name] = array
    return arrays, "refused"


def transplant(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """An array of another model: beside the right ones, or in the place of its namesake."""
    other = OTHERS[rng.integers(len(OTHERS))]()
    name = sorted(other)[rng.integers(len(other))]
    if name == "global_step":
        name = "set_transformer/linear/w"
    fits = name in arrays and arrays[name].shape == other[name].shape
    arrays[name] = other[name]
    return arrays, "converted" if fits else "refused"


def change(arrays: Arrays, name: str, rng: np.random.Generator) -> Outcome:
    """Another value of the same type."""
    array = arrays[name].copy()
    place = rng.integers(array.size)
    if array.dtype == np.int64:
        array.flat[place] = rng.integers(0, 2**40)
    else:
        array.flat[place] = np.float32(rng.choice([0.0, -0.0, 1e-42, 3.25, -1e30, rng.standard_normal()]))
    arrays[name] = array
    return arrays, "converted"


REWRITTEN: tuple[Callable[[Arrays, str, np.random.Generator], Outcome], ...] = (
    rename, drop, double, reshape, retype, poison, transplant, change)


def flip(folder: Path, file: str, rng: np.random.Generator) -> None:
    """One bit of a file."""
    path = folder / file
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def cut(folder: Path, file: str, rng: np.random.Generator) -> None:
    """The end of a file is missing."""
    path = folder / file
    path.write_bytes(path.read_bytes()[:rng.integers(path.stat().st_size)])


def scramble(folder: Path, file: str, rng: np.random.Generator) -> None:
    """A stretch of a file is noise."""
    path = folder / file
    content = bytearray(path.read_bytes())
    start = int(rng.integers(len(content)))
    content[start:start + 64] = rng.bytes(len(content[start:start + 64]))
    path.write_bytes(content)


INDEX, DATA = f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001"
BLIND = tuple((damage, file) for damage in (flip, cut, scramble) for file in (INDEX, DATA))


def expectation(arrays: Arrays) -> tuple[Arrays, Arrays, int]:
    """Variables, slots and step that have to come out."""
    variables, slots, _ = convert.split_checkpoint(arrays)
    return variables, slots, int(arrays["global_step"])


def converted_as(out: Path, arrays: Arrays) -> bool:
    """Whether a folder holds exactly these numbers."""
    model = port.load(out)
    slots, step = model_folder.load_slots(out, model)
    found = port.to_tf(model) | convert.slots_to_tf(model, slots)
    variables, expected_slots, expected_step = expectation(arrays)
    expected = variables | expected_slots
    return step == expected_step and set(found) == set(expected) and all(
        found[name].tobytes() == expected[name].tobytes() for name in expected)


def run(folder: Path, capsys: pytest.CaptureFixture) -> tuple[int, str]:
    """Convert without proof: exit code and stderr."""
    code = cli.main(["convert", str(folder), str(folder.parent / "out"), "--no-verify", "--config",
                     str(FIXTURE.folder)])
    return code, capsys.readouterr().err


def judge(what: str, code: int, error: str, parent: Path, wanted: str, arrays: Arrays) -> str:
    """What happened, in a word; anything but the two proper ends fails."""
    out = parent / "out"
    left = sorted(path.name for path in parent.iterdir())
    if code == 2:
        assert error.startswith("error: ") and error.count("\n") == 1, f"{what}: {error}"
        assert left == ["ckpt"], f"{what}: {left} left behind"
        outcome = "refused"
    else:
        assert code == 0 and left == ["ckpt", "out"], f"{what}: exit code {code}, {error}"
        assert converted_as(out, arrays), f"{what}: other numbers came out"
        shutil.rmtree(out)
        outcome = "converted"
    assert outcome == wanted or wanted == "either", f"{what}: {outcome}, expected {wanted}; {error}"
    return outcome


def test_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture, tier: str) -> None:
    """Damages with valid checksums; the tally is printed (pytest -rP shows it)."""
    original = reference.read_checkpoint(SOURCE)
    names, tally = sorted(original), collections.Counter()
    count = N_REWRITTEN // 8 if tier == "smoke" else N_REWRITTEN
    for seed in range(count):
        rng = np.random.default_rng([1, seed])
        damage = REWRITTEN[seed % len(REWRITTEN)]
        name = names[rng.integers(len(names))]
        arrays, wanted = damage(dict(original), name, rng)
        shutil.rmtree(tmp_path / "ckpt", ignore_errors=True)
        reference.write_checkpoint(tmp_path / "ckpt" / PREFIX, arrays)
        what = f"seed {seed}, {damage.__name__} {name}"
        tally[damage.__name__, judge(what, *run(tmp_path / "ckpt", capsys), tmp_path, wanted, arrays)] += 1
    report(tally, count)


def test_blind(tmp_path: Path, capsys: pytest.CaptureFixture, tier: str) -> None:
    """Flipped, cut and scrambled files: refused, or (in bytes that mean nothing) read as they were."""
    original, tally = reference.read_checkpoint(SOURCE), collections.Counter()
    count = N_BLIND // 8 if tier == "smoke" else N_BLIND
    for seed in range(count):
        rng = np.random.default_rng([2, seed])
        damage, file = BLIND[seed % len(BLIND)]
        shutil.rmtree(tmp_path / "ckpt", ignore_errors=True)
        shutil.copytree(SOURCE, tmp_path / "ckpt", copy_function=shutil.copyfile)
        damage(tmp_path / "ckpt", file, rng)
        what = f"seed {seed}, {damage.__name__} {file}"
        try:
            read = reference.read_checkpoint(tmp_path / "ckpt" / PREFIX)
            wanted = "either"
            assert all(read[name].tobytes() == value.tobytes() for name, value in original.items()), what
        except reference.CheckpointError:
            wanted = "refused"
        tally["TensorFlow", "refused" if wanted == "refused" else "read"] += 1
        outcome = judge(what, *run(tmp_path / "ckpt", capsys), tmp_path, wanted, original)
        tally[f"{damage.__name__} {file.rpartition('.')[2][:5]}", outcome] += 1
    report(tally, count)


def report(tally: collections.Counter, count: int) -> None:
    """The tally as a table."""
    assert sum(number for (kind, _), number in tally.items() if kind != "TensorFlow") == count
    for (kind, outcome), number in sorted(tally.items()):
        print(f"{kind:12} {outcome:10} {number}")
