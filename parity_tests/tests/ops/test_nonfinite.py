"""A number that is not finite stops the run, is traced to where it began, and nothing bad is kept."""

from __future__ import annotations

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines import train as stage
from port.core import losses, ops
from port.scae import part_encoder
from port.training import diagnose, resume
from port.training import loop as train


def failing(folder=None, made=None, **changed) -> str:
    """The message of a run that must fail."""
    made = made or runs.model()
    with pytest.raises(resume.NonFiniteLoss) as caught:
        train.train(made, runs.dataset(), runs.settings(**changed), folder)
    return str(caught.value)


def zero_by_zero(module, name, monkeypatch, part):
    """Let a function of the model divide by zero in one part of its result."""
    original = getattr(module, name)

    def broken(*arguments, **keywords):
        result = original(*arguments, **keywords)
        if part is None:
            return 0 * result / 0
        return type(result)(0 * v / 0 if i == part else v for i, v in enumerate(result))
    monkeypatch.setattr(module, name, broken)


@pytest.mark.parametrize(("module", "name", "part", "tap"), [
    (part_encoder, "attention_pool", 3, "part_enc/caps_params"),
    (ops, "geometric_transform", None, "part_enc/pose"),
    (ops, "log_sum_exp", None, "res/mixing_log_prob"),
])
def test_an_op_that_divides_by_zero_is_named_by_its_tap(module, name, part, tap, monkeypatch):
    zero_by_zero(module, name, monkeypatch, part)
    assert f"first non-finite tap: {tap} (step 1)" in failing()


@pytest.mark.parametrize(("weight", "tap"), [
    ("part_decoder.templates", "templates/logits"),
    ("part_encoder.cnn.conv.1.weight", "part_enc/conv1_preact"),
    # Recorded after the pictures that depend on it; the order is that of computation.
    ("object_decoder.capsule_layer.batch_mlp.0.batch_linear.1.weight", "obj_dec/raw_caps_params"),
    ("object_encoder.linear.1.weight", "obj_enc/output"),
])
def test_broken_weights_are_named_by_the_tap_they_reach_first(weight, tap, tmp_path):
    made = runs.model()
    with torch.no_grad():
        dict(made.named_parameters())[weight].fill_(float("nan"))
    assert f"first non-finite tap: {tap} (step 1)" in failing(tmp_path, made)
    assert not resume.checkpoints(tmp_path)  # there never was a good state


@pytest.mark.parametrize("weight", ["templates", "templates_alpha", "bg_value", "bg_mixing_logit"])
def test_the_fused_kernel_does_not_hide_it(weight):
    """Without taps the kernel computes the likelihood, whose comparisons step over a NaN."""
    made = runs.model()
    with torch.no_grad():
        getattr(made.part_decoder, weight).view(-1)[0] = float("nan")
        result = made(torch.rand(3, 1, 14, 14, generator=torch.Generator().manual_seed(0)))
    assert torch.isnan(result.scalars["rec_ll"])


def test_a_run_that_blows_up_keeps_its_last_good_state(tmp_path):
    """The last state that was looked at and found finite, which a rerun starts from."""
    made, calls = runs.model(), []

    def late(module, given, votes):
        # The seventh update breaks, again when it is repeated: it is known by its weights.
        calls.append(module.cpr_static.detach().sum().item())
        return votes._replace(scale=votes.scale / 0) if calls.index(calls[-1]) == 6 else votes
    made.object_decoder.capsule_layer.register_forward_hook(late)
    message = failing(tmp_path, made, grad_value_clip=1.0)
    assert "not finite between step 5 and 8" in message and "(step 7)" in message
    assert [path.name for path in resume.checkpoints(tmp_path)] == ["step-00000005"]
    kept = resume.read_tensors(tmp_path / "step-00000005", "model", "cpu")
    assert not resume.non_finite(kept)


def test_a_gradient_that_is_not_finite_while_the_loss_is(monkeypatch, tmp_path):
    """sqrt at 0: the value is 0, the slope is infinite."""
    original = losses.total_loss

    def with_root(terms, weights):
        return original(terms, weights) + torch.sqrt(0.0 * terms["dynamic_weights_l2"])
    monkeypatch.setattr(losses, "total_loss", with_root)
    message = failing(tmp_path, steps=1)
    assert "not finite after step 1" in message
    assert "the loss is finite, the gradient of" in message and "is not (step 1)" in message
    assert "object_decoder.capsule_layer.batch_mlp" in message or "object_encoder" in message \
        or "part_encoder" in message
    assert not resume.checkpoints(tmp_path)


def test_the_command_ends_with_1_and_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(stage, "RUNS", tmp_path / "runs")
    words = ["train", "--results", str(tmp_path)]
    for key, value in runs.TINY.items():
        words += ["--set", f"model.{key}={str(value).lower() if value is True else value}"]
    for change in ("prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.lr=1.0e+30",
                   "train.steps=4", "train.log_every=2", "train.held_out_every=0"):
        words += ["--set", change]
    assert cli.main(words) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("failed: ") and "tap" in lines[0], lines


@pytest.mark.parametrize("optimizer", ["tf-rmsprop", "radam"])
def test_steps_are_repeated_as_they_were(optimizer: str) -> None:
    """The search for the cause takes the very steps of the run, rate included."""
    run = train.Run(runs.model(), runs.dataset(), runs.settings(optimizer=optimizer, steps=3))
    start = resume.Snapshot(run.state)
    while not run.done:
        run.advance([])
    weights = [p.detach().clone() for p in run.model.parameters()]
    assert diagnose.first_cause(run.step, start, 3).endswith("everything stayed finite")
    assert all(torch.equal(p, kept) for p, kept in zip(run.model.parameters(), weights, strict=True))
