"""Viewpoint: a moved object pose moves every vote, a moved image moves what the decoder draws.

The first is the paper's claim about object capsules and holds exactly, for any weights; the second says in
which coordinates poses live. What the part encoder has learned of it is measured, not tested: here the
measure itself is held to models that follow entirely or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import numpy as np
import pytest
import torch

import port
from parity_tests import registry
from parity_tests.harness.sides import draw_variables, run
from parity_tests.harness.strategies import Maker, cases
from parity_tests.tests.checkpoints.test_run_folder import CHANGED, trained
from pipelines import cli, prepare
from pipelines import equivariance as stage
from pipelines.results import plots
from pipelines.support import sections, settings
from port.core import warp
from port.evaluation import equivariance, looks
from port.scae.part_encoder import PartCapsules

LAYER = registry.rows()["scae.object_decoder.CapsuleLayer"]
SIDES = ("reference", "port")


def matrices(pose: np.ndarray) -> np.ndarray:
    """`[..., 6]` as `[..., 3, 3]`."""
    last = np.broadcast_to([0.0, 0.0, 1.0], (*pose.shape[:-1], 1, 3))
    return np.concatenate([pose.reshape(*pose.shape[:-1], 2, 3), last], -2)


def draw_objects(m: Maker):
    """A capsule layer with its inputs, the objects' poses and one motion G for each example."""
    case = LAYER.draw(m)
    batch, n_caps = case.inputs["features"].shape[:2]
    return case, matrices(m.pose(batch, n_caps))[:, :, None], matrices(m.pose(batch))[:, None, None]


@pytest.mark.parametrize("side", SIDES)
def test_votes_move_with_the_object(side: str, tier: str) -> None:
    """vote(G·P) = G·vote(P) for every vote; presences and scales do not see a pose."""
    @hypothesis.settings(max_examples={"smoke": 4, "default": 20, "deep": 200}[tier])
    @hypothesis.given(cases(draw_objects))
    def property_(drawn) -> None:
        case, pose, motion = drawn
        variables = draw_variables(LAYER.recipe, case.attributes, case.seed)

        def votes(parent: np.ndarray) -> dict[str, np.ndarray]:
            return run(side, LAYER.recipe, case.inputs | {"parent_transform": parent}, case.attributes,
                       "float64", None, variables).outputs

        before, after = votes(pose), votes(motion @ pose)
        expected = motion @ before["vote"]
        np.testing.assert_allclose(after["vote"], expected, rtol=0, atol=1e-12 * np.abs(expected).max())
        for name in ("scale", "vote_presence", "pres_logit_per_caps", "pres_logit_per_vote"):
            np.testing.assert_array_equal(after[name], before[name])
        # Not for want of motion.
        assert np.abs(after["vote"] - before["vote"]).max() > 1e-6
    property_()


@pytest.mark.parametrize("side", SIDES)
def test_a_capsule_s_own_pose_is_such_a_pose(side: str) -> None:
    """The votes without a parent are those of the capsule's own pose: what holds for G·P holds for it."""
    @hypothesis.settings(max_examples=4)
    @hypothesis.given(cases(LAYER.draw))
    def property_(case) -> None:
        variables = draw_variables(LAYER.recipe, case.attributes, case.seed)
        inputs = {k: v for k, v in case.inputs.items() if k != "parent_transform"}
        identity = np.broadcast_to(np.eye(3), (*inputs["features"].shape[:2], 1, 3, 3))

        def votes(more: dict[str, np.ndarray]) -> np.ndarray:
            return run(side, LAYER.recipe, inputs | more, case.attributes, "float64", None,
                       variables).outputs["vote"]

        relation, own = votes({"parent_transform": identity}), votes({})
        hypothesis.assume(np.abs(np.linalg.det(relation[..., 0, :2, :2])).min() > 1e-2)
        pose = own[:, :, :1] @ np.linalg.inv(relation[:, :, :1])
        again = votes({"parent_transform": pose})
        np.testing.assert_allclose(again, own, rtol=0, atol=1e-9 * np.abs(own).max())
    property_()


def test_motions_and_what_they_do_to_an_image() -> None:
    """Whole pixels move an array, a quarter turn turns it clockwise."""
    image = torch.rand(2, 3, 9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = equivariance.move_images(image, equivariance.motion(9, shift=(2, -1)))
    expected = torch.zeros_like(image)
    expected[:, :, :-1, 2:] = image[:, :, 1:, :-2]
    # The sampler's grid is that of float32 (Q17), so a whole pixel is one up to its rounding.
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
    turned = equivariance.move_images(image, equivariance.motion(9, degrees=90))
    torch.testing.assert_close(turned, torch.rot90(image, -1, (2, 3)), rtol=0, atol=1e-5)


def test_the_decoder_draws_a_moved_pose_at_the_moved_place() -> None:
    """A template under G·P is the picture under P, moved by G."""
    generator = torch.Generator().manual_seed(1)
    template = torch.rand(1, 1, 1, 5, 5, dtype=torch.float64, generator=generator)
    pose = torch.tensor([[[0.3, -0.1, 0.1, 0.05, 0.35, -0.15]]], dtype=torch.float64)
    motion = equivariance.motion(21, shift=(3, -2))
    drawn = warp.warp_templates(template, pose, (21, 21))[:, 0]
    again = warp.warp_templates(template, equivariance.move_poses(pose, motion), (21, 21))[:, 0]
    torch.testing.assert_close(again, equivariance.move_images(drawn, motion), rtol=0, atol=1e-5)
    assert (again - drawn).abs().max() > 0.1
    turned = equivariance.move_poses(pose, equivariance.motion(21, degrees=90))[0, 0]
    torch.testing.assert_close(turned, torch.tensor([-0.05, -0.35, 0.15, 0.3, -0.1, 0.1]).double(),
                               rtol=0, atol=1e-7)


def test_the_decoder_draws_a_turned_round_pose_at_the_moved_place() -> None:
    """Where poses map the canvas to the template, Q·G⁻¹ draws what Q drew, moved by G; G·Q does not."""
    generator = torch.Generator().manual_seed(1)
    template = torch.rand(1, 1, 1, 5, 5, dtype=torch.float64, generator=generator)
    pose = torch.tensor([[[2.5, 0.4, 0.3, -0.3, 2.8, 0.2]]], dtype=torch.float64)
    drawn = warp.warp_templates(template, pose, (21, 21), False)[:, 0]
    for motion in (equivariance.motion(21, shift=(3, -2)), equivariance.motion(21, shift=(1, 0), degrees=90)):
        moved = equivariance.move_poses(pose, motion, to_canvas=False)
        again = warp.warp_templates(template, moved, (21, 21), False)[:, 0]
        expected = equivariance.move_images(drawn, motion)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-5)
        wrong = warp.warp_templates(template, equivariance.move_poses(pose, motion), (21, 21), False)[:, 0]
        assert (wrong - expected).abs().max() > 0.1
        other_way = warp.inverse_affine(equivariance.move_poses(warp.inverse_affine(pose), motion))
        torch.testing.assert_close(moved, other_way, rtol=0, atol=1e-12)


class Brightest(torch.nn.Module):
    """Two parts at the brightest pixel, or where they are told to stay; poses map as `to_canvas` says."""

    def __init__(self, follows: bool, to_canvas: bool) -> None:
        super().__init__()
        self.follows, self.to_canvas, self.passes = follows, to_canvas, 0

    def forward(self, image: torch.Tensor) -> PartCapsules:
        self.passes += 1
        side = image.shape[-1]
        place = image.flatten(1).argmax(1)
        x, y = (2.0 * v / (side - 1) - 1.0 for v in (place % side, place // side))
        pose = torch.zeros(len(image), 2, 6)
        pose[..., 0], pose[..., 4] = 0.3, 0.3
        if self.follows:
            pose[:, 0, 2], pose[:, 0, 5] = x, y
            pose[:, 1, 2], pose[:, 1, 5] = x + 0.1, y
        presence = torch.tensor([1.0, 0.5]).expand(len(image), 2)
        return PartCapsules(pose if self.to_canvas else warp.inverse_affine(pose), presence, presence, None)


class Stand(torch.nn.Module):
    """A model whose parts follow shifts, or stay where they are."""

    def __init__(self, follows: bool, to_canvas: bool) -> None:
        super().__init__()
        self.part_encoder, self.follows = Brightest(follows, to_canvas), follows
        self.config = SimpleNamespace(part_decoder=SimpleNamespace(inverse_space_transform=to_canvas))

    def forward(self, image: torch.Tensor) -> SimpleNamespace:
        self.part_encoder(image)
        return SimpleNamespace(mass_explained_by_capsule=image[:, 0].amax(-1) if self.follows
                               else torch.ones(len(image), 3))


@pytest.mark.parametrize("to_canvas", [True, False])
def test_the_measure_on_models_whose_answer_is_known(to_canvas: bool) -> None:
    """All of the motion and no error, or none of it and an error of its size; each image is seen once."""
    image = torch.zeros(5, 1, 15, 15)
    image[torch.arange(5), 0, torch.arange(4, 9), torch.arange(5, 10)] = 1.0
    motion = equivariance.motion(15, shift=(3, -2))
    models = [Stand(one, to_canvas) for one in (True, False)]
    follows, stays = (equivariance.follow(model, image, motion, 2) for model in models)
    assert follows.slope == pytest.approx(1.0, abs=1e-6) and stays.slope == 0.0
    assert max(follows.error.values()) < 1e-5 and stays.same_object == stays.by_chance == 1.0
    assert follows.by_chance == pytest.approx(0.2)  # five images in five rows
    assert stays.error == pytest.approx(dict.fromkeys(stays.error, np.hypot(3, 2)))
    assert stays.required == stays.error
    assert [model.part_encoder.passes for model in models] == [6, 6]  # three batches, before and after


def test_quantiles_count_weights() -> None:
    """A value of weight 3 stands for three; one of weight 0 for nothing."""
    ours = equivariance.quantiles(np.array([5.0, 1.0, 9.0, 2.0]), np.array([1.0, 3.0, 0.0, 1.0]))
    assert ours == {"5": 1.0, "25": 1.0, "50": 1.0, "75": 2.0, "95": 5.0}


def test_each_motion_goes_both_ways() -> None:
    """With every map its inverse: shifts along both axes, turns in both directions."""
    found = stage.motions(sections.Equivariance(shifts=[2], degrees=[30]), 21)
    assert [(name, size, len(maps)) for name, size, maps in found] == [
        ("shift by 2 px", 2.0, 4), ("turn by 30°", 30.0, 2)]
    for _, _, maps in found:
        for one in maps:
            assert sum(torch.allclose(one @ other, torch.eye(3, dtype=one.dtype), atol=1e-6) for other in maps) == 1
    places = {tuple(one[:2, 2].mul(10).round().int().tolist()) for one in found[0][2]}
    assert places == {(2, 0), (-2, 0), (0, 2), (0, -2)}


def test_a_kind_of_motion_is_the_mean_of_its_maps() -> None:
    one, other = (equivariance.Followed({"50": v}, {"50": 2 * v}, 3 * v, 4 * v, 5 * v) for v in (1.0, 3.0))
    assert stage.mean([one, other]) == {"error": {"50": 2.0}, "required": {"50": 4.0}, "slope": 6.0,
                                        "same_object": 8.0, "by_chance": 10.0}


def test_the_stage(tmp_path: Path, monkeypatch, capsys) -> None:
    """Each motion with its figures before and after, and the chart of the report."""
    folder = trained("digits", CHANGED, tmp_path)
    (tmp_path / "params.yaml").write_text("equivariance: {images: 6, shifts: [1], degrees: [30]}")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["equivariance", str(folder), "--results", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "equivariance/digits/3/metrics.json").read_text())
    assert [row["motion"] for row in found["motions"]] == ["shift by 1 px", "turn by 30°"]
    shift = found["motions"][0]
    assert (found["images"], shift["maps"]) == (6, 4)
    assert shift["final"]["required"]["50"] == pytest.approx(1.0, abs=1e-6)
    for row in found["motions"]:
        for moment in ("initial", "final"):
            error = list(row[moment]["error"].values())
            assert error == sorted(error) and error[0] >= 0 and 0 <= row[moment]["same_object"] <= 1
    assert plots.followed(found["motions"]).count("shift by 1 px") == 1
    said = capsys.readouterr().out
    for moment in ("initial", "final"):
        assert f"{moment} {shift[moment]['error']['50']:.2f} ({shift[moment]['error']['25']:.2f}-" in said
    final = port.load(folder)
    preset = settings.preset_of_run(folder)[0]
    image = looks.arranged(prepare.dataset_for(preset, tmp_path).test.images[:6], final.config.canvas,
                           preset.train(3)[0].shift)
    for moment, model in (("initial", port.build(final.config, 3).eval()), ("final", final)):
        expected = stage.mean([equivariance.follow(model, image, one)
                               for one in stage.motions(sections.Equivariance(shifts=[1], degrees=[]),
                                                        final.config.canvas)[0][2]])
        assert shift[moment]["error"]["50"] == pytest.approx(expected["error"]["50"], rel=1e-4)
    (tmp_path / "params.yaml").write_text("equivariance: {shifts: [near]}")
    assert cli.main(["equivariance", str(folder), "--results", str(tmp_path)]) == 2
    assert "shifts must be a list of numbers" in capsys.readouterr().err
