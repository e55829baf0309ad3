"""A whole update on a pretended GPU: nothing waits, is copied from the host, or depends on values.

The counts of each preset's step stand in `fixtures/step_counts.json`
(`scae bench --device pretended --json parity_tests/fixtures/step_counts.json` writes it).
"""

from __future__ import annotations

import contextlib
import json

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines.bench import pretended as bench_pretended
from pipelines.support import settings
from port.families import build
from port.training import ensemble, precision, pretended
from port.training import loop as train

COUNTS = json.loads((REPOSITORY / "parity_tests/fixtures/step_counts.json").read_text())
# One of each structure; the deep tier takes all.
PRESETS = ("mnist", "cifar10", "constellation", "capsnet_cifar10", "em_mnist_small", "em_smallnorb", "ocae",
           "digits_three_levels", "mlab", "pcae")
# Versions of torch split an operation in two or join two; a change of ours that matters is larger.
RATIO = 1.25


def captured(model: torch.nn.Module, **changed) -> pretended.Watch:
    """One update of a small model on the pretended GPU."""
    wanted = runs.settings(**{"capture": "always", **changed})
    with pretended.gpu() as graphs:
        model = model.to("cuda")
        with precision.mode(wanted, "cuda"), precision.mixed(model, wanted):
            run = train.Run(model, runs.dataset().to("cuda"), wanted)
            run.step(run.state.batches.next_index(), wanted.lr)
            assert run.step.in_force == "captured" and graphs[0].replays == 1
    return graphs[0].watch


@pytest.mark.parametrize("name", COUNTS)
def test_a_step_of_every_preset(name: str, tier: str) -> None:
    """It can be captured, and asks for about what it did."""
    if name not in PRESETS and tier != "deep":
        pytest.skip("one preset of each structure; all with --tier=deep")
    found, before = bench_pretended.count(settings.load_preset(name)), COUNTS[name]
    for what in ("operations", "bytes"):
        assert before[what] / RATIO <= getattr(found, what) <= before[what] * RATIO, (
            f"{name}: {what} of a step {before[what]:,} before, {getattr(found, what):,} now; if that is "
            "meant, write the counts anew")


def test_every_preset_is_counted() -> None:
    assert set(COUNTS) == set(settings.load_params("params.yaml")["presets"])


@pytest.mark.parametrize("changed", [
    {"optimizer": "tf-rmsprop", "grad_value_clip": 0.5, "shift": "uniform"},
    {"optimizer": "tf-adam", "grad_norm_clip": 1e-3, "lr_schedule": "exponential"},
    {"optimizer": "sgd", "weight_decay": 0.1, "amp": "bf16", "shift": "translate"},
    {"optimizer": "sgd", "momentum": 0.0, "lr_factors": {"part_decoder.": 0.1}, "noise": False},
    {"optimizer": "rmsprop", "weight_decay": 0.1, "amp": "fp16", "jitter": True},
    {"optimizer": "adam", "weight_decay": 0.1, "lr_schedule": "cosine_restarts", "tf32": True},
    {"optimizer": "radam", "weight_decay": 0.1, "deterministic": True, "grad_value_clip": 0.5,
     "grad_norm_clip": 1e-3, "shuffle": False}], ids=str)
def test_every_way_to_train(changed: dict) -> None:
    """Rules, clips, schedules, precisions, places: a problem names its line, so they come together."""
    assert captured(runs.model(), **changed).operations > 500


@pytest.mark.parametrize("changed", [
    {"target": "sobel", "use_alpha_channel": False, "learn_output_scale": True, "mse_weight": 1.0},
    {"n_inducing_points": 3, "dropout_rate": 0.1, "caps_dropout_rate": 0.1, "vote_type": "soft",
     "weight_decay": 0.1, "colorize_templates": False}], ids=str)
def test_every_kind_of_image_model(changed: dict) -> None:
    """Targets, templates, dropout: what the presets do not have."""
    assert captured(runs.model(**changed)).operations > 500


def test_several_runs_on_streams() -> None:
    """Each of an ensemble's runs is captured by itself and replayed."""
    made = []
    with pretended.gpu() as graphs:
        for seed in (0, 1):
            wanted = runs.settings(seed=seed, steps=3, log_every=2)
            made.append((build(runs.model().config, seed=seed).to("cuda"), wanted, {}))
        trained = ensemble.train_together(made, runs.dataset().to("cuda"))
    assert [graph.replays for graph in graphs] == [3, 3]
    assert [one.rung for one in trained] == ["captured", "captured"]


def test_the_warp_that_repeats_is_for_the_deterministic_mode() -> None:
    """The hat weights are products; elsewhere the gather, which moves less."""
    plain, repeatable = captured(runs.model()), captured(runs.model(), deterministic=True)
    assert plain.launched["aten.gather.default"] >= 4
    assert not repeatable.launched["aten.scatter_add.default"]
    assert repeatable.bytes > plain.bytes


def test_low_precision_is_seen() -> None:
    """The products' factors are cast, and cast back."""
    casts = [captured(runs.model(), amp=amp).launched["aten._to_copy.default"] for amp in ("none", "bf16")]
    assert casts[1] > casts[0] + 20


# ------------------------------------------------------------------------------------ it can say no

@pytest.mark.parametrize(("wrong", "kind", "operation"), [
    (lambda x: x.sum().item(), pretended.WAIT, "item"),
    (lambda x: float(x.amax()), pretended.WAIT, "__float__"),
    (lambda x: x.tolist(), pretended.WAIT, "tolist"),
    (lambda x: 1 if x.sum() > 0 else 2, pretended.WAIT, "__bool__"),
    (lambda x: torch.full((2,), x.detach().sum(), device=x.device), pretended.WAIT, "_local_scalar_dense"),
    (lambda x: torch.tensor([1.0, 2.0], device=x.device), pretended.COPY, "tensor"),
    (lambda x: x.new_tensor([1.0, 2.0]), pretended.COPY, "new_tensor"),
    (lambda x: torch.ones(3).to(x.device), pretended.COPY, "_to_copy"),
    (lambda x: x.cpu(), pretended.COPY, "_to_copy"),
    (lambda x: x.detach()[..., 0].copy_(torch.ones(len(x))), pretended.COPY, "copy_"),
    (lambda x: x + torch.ones(x.shape[-1]), pretended.MIXED, "add"),
    (lambda x: x * torch.tensor(2.0), pretended.MIXED, "mul"),
    (lambda x: torch.ones(3) * 2.0, pretended.HOST, "mul"),
    (lambda x: x[x > 0.5], pretended.SHAPE, "index"),
    (lambda x: torch.ones(2, device=x.device).repeat_interleave(x.detach()[0, :2].long()), pretended.SHAPE,
     "repeat_interleave")])
def test_what_no_graph_holds_is_noticed(wrong, kind: str, operation: str) -> None:
    """With the line that did it, however little it looks like it."""
    with pretended.gpu() as graphs:
        x = torch.rand(4, 5, device="cuda", requires_grad=True)
        with contextlib.suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
            wrong(x)
    found = [problem for problem in graphs[0].watch.problems if (problem.kind, problem.operation)
             == (kind, operation)]
    assert found and found[0].place.startswith("parity_tests/tests/training/test_pretended.py:")


class Reading(torch.autograd.Function):
    """Reads a value in its backward pass."""

    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return 2.0 * x

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float(gradient.sum()) if gradient.is_cuda else gradient


def test_the_backward_pass_is_looked_at_too() -> None:
    """Its code sees a GPU, and what it reads is noticed."""
    with pretended.gpu() as graphs:
        x = torch.rand(4, device="cuda", requires_grad=True)
        with pytest.raises(RuntimeError, match="value read by the host: __float__"), \
                torch.cuda.graph(torch.cuda.CUDAGraph()):
            Reading.apply(x).sum().backward()
    assert graphs[0].watch.launched["aten.mul.Tensor"] == 2 and x.grad.is_meta


def test_bytes_are_those_of_memory() -> None:
    """float32: a broadcast sum, two rows of a hundred, a view, a list in place that is read and written."""
    with pretended.gpu() as graphs:
        x, y, rows = (torch.rand(*shape, device="cuda") for shape in ((4, 3), (3,), (100, 10)))
        index = torch.zeros(2, dtype=torch.int64, device="cuda")
        for run in (lambda: x + y.expand(4, 3), lambda: rows[index], lambda: x.view(12)[None].mT,
                    lambda: torch._foreach_mul_([x, y], 2.0)):
            with torch.cuda.graph(torch.cuda.CUDAGraph()):
                run()
    assert [graph.watch.bytes for graph in graphs] == [4 * (12 + 3 + 12), 2 * 8 + 2 * 4 * 20, 0,
                                                            2 * 4 * (12 + 3)]
    assert [graph.watch.operations for graph in graphs] == [1, 1, 0, 1]


def test_the_table(capsys: pytest.CaptureFixture, tmp_path) -> None:
    """`scae bench --device pretended` prints what it counts and writes what the test reads."""
    path = tmp_path / "counts.json"
    assert cli.main(["bench", "--device", "pretended", "--preset", "pcae", "--json", str(path)]) == 0
    assert set(json.loads(path.read_text())) == {"pcae"}
    assert "operations" in capsys.readouterr().out
    assert cli.main(["bench", "--device", "pretended", "--batch-size", "3"]) == 2
