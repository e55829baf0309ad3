"""The constellation model: whole models under drawn configurations, batches on the device, repairs."""

from __future__ import annotations

import json

import hypothesis
import numpy as np
import pytest
import torch
from scipy import stats

import port
from parity_tests.drawn.constellations import FACTORS, OP, SPECIAL, ConstellationCase, draw_model
from parity_tests.drawn.verify import verify_model
from parity_tests.harness import recorder
from parity_tests.harness.strategies import cases
from parity_tests.tests.models.test_model import SMOKE
from port.constellation import batches as constellation_batches
from port.constellation import data as constellation_data
from port.core import losses
from port.evaluation import clustering as evaluate
from port.scae import object_decoder

RNG = np.random.default_rng(7)


def tiny(seed: int = 0, **settings: object) -> port.ConstellationAutoencoder:
    """A small model in float64."""
    sizes = {"n_dims": 8, "n_heads": 2, "n_layers": 1, "n_output_dims": 6, "n_hiddens": 5}
    config = port.config.from_flat({"model": "constellation", **sizes, **settings})
    return port.build(config, seed).double()


def batch(size: int = 4) -> constellation_batches.Batch:
    """Points and presences in float64."""
    stream = constellation_batches.Batches(constellation_batches.PointSettings(), size, 3)
    index = stream.next_index()
    found = constellation_batches.Batch(*(field[index] for field in stream.block))
    return found._replace(corners=found.corners.double(), presence=found.presence.double())


def test_drawn_models(model_examples: int, request: pytest.FixtureRequest) -> None:
    """Every tap, gradient and optimizer step under drawn configurations."""
    tier = request.config.getoption("--tier")
    reproduce = f'python -m pytest "parity_tests/tests/models/test_constellation.py::test_drawn_models" --tier={tier}'

    @hypothesis.settings(max_examples=max(model_examples // 4, 1))
    @hypothesis.given(cases(draw_model, OP))
    def parity(case: ConstellationCase) -> None:
        verify_model(case, reproduce, **(SMOKE if tier == "smoke" else {}))

    with recorder.test_of(OP):
        parity()


@pytest.mark.parametrize("index", range(len(SPECIAL)))
def test_fixed_models(index: int, tier: str) -> None:
    """The fixed configurations that hold every value of every option."""
    reproduce = f'python -m pytest "parity_tests/tests/models/test_constellation.py::test_fixed_models[{index}]"'
    with recorder.test_of(OP):
        verify_model(SPECIAL[index], reproduce, **(SMOKE if tier == "smoke" else {}))


def test_fixed_models_hold_every_value() -> None:
    """Of every option; the plain decoder has no capsule dropout, so it needs the other class too."""
    for section in ("obj_encoder", "obj_decoder"):
        for name in FACTORS.keys() & SPECIAL[0].arguments[section].keys():
            found = {json.dumps(case.arguments[section][name]) for case in SPECIAL}
            assert found == {json.dumps(value) for value in FACTORS[name]}, name
    assert {case.labels is None for case in SPECIAL} == {case.noise is None for case in SPECIAL} \
        == {True, False}
    for name in ("prior_sparsity_loss_type", "posterior_sparsity_loss_type"):
        assert {case.arguments["autoencoder"][name] for case in SPECIAL} == {"l2", "entropy", "kl"}


def test_same_draws_same_points() -> None:
    """On tensors and on arrays, noise and every pattern included, bit by bit."""
    slots = (2, 0, 3, 1)
    draws = constellation_data.draw(np.random.RandomState(5), 20, slots, gaussian_noise=0.1)
    expected = constellation_data.assemble(draws, slots)
    tensors = constellation_data.Draws(*(torch.from_numpy(np.asarray(value)) for value in draws))
    found = constellation_batches.assemble(tensors, slots)
    for name in expected._fields:
        assert np.array_equal(getattr(found, name).numpy(), getattr(expected, name)), name


@pytest.mark.parametrize("name", ["angle", "scale", "translation", "presence", "noise"])
def test_same_distribution(name: str) -> None:
    """What a torch generator draws is distributed as what NumPy's draws (Kolmogorov-Smirnov)."""
    size, settings = 4000, {"gaussian_noise": 0.1, "drop_prob": 0.3, "max_translation": 0.5}
    wanted = constellation_batches.PointSettings(**settings)
    ours = constellation_batches.draw(torch.Generator().manual_seed(1), size, wanted)
    theirs = constellation_data.draw(np.random.RandomState(1), size, **settings)
    found, expected = (np.asarray(getattr(draws, name), np.float64).ravel() for draws in (ours, theirs))
    assert found.shape == expected.shape
    assert stats.ks_2samp(found, expected).pvalue > 1e-3


def test_orders_are_uniform() -> None:
    """Every point stands at every place equally often, and each order is a permutation."""
    wanted = constellation_batches.PointSettings()
    order = constellation_batches.draw(torch.Generator().manual_seed(2), 5000, wanted).order.numpy()
    n_points = wanted.n_points
    assert (np.sort(order, 1) == np.arange(n_points)).all()
    for place in range(n_points):
        assert stats.chisquare(np.bincount(order[:, place], minlength=n_points)).pvalue > 1e-4


def test_batches_continue() -> None:
    """A stream that is taken up again gives the same batches, across the end of a block."""
    def stream() -> constellation_batches.Batches:
        return constellation_batches.Batches(constellation_batches.PointSettings(), 2, 9)

    first = stream()
    for _ in range(constellation_batches.BLOCK - 1):
        next(first)
    state = first.state_dict()
    second = stream()
    second.load_state_dict(state)
    for _ in range(3):
        for ours, theirs in zip(next(second), next(first), strict=True):
            assert torch.equal(ours, theirs)
    assert float(first.block.corners.min()) == -1.0 and float(first.block.corners.max()) == 1.0


def test_refuses_bad_input() -> None:
    """One clear line that says what was expected."""
    model, points = tiny(), torch.zeros(2, 5, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"points: expected shape \[batch, points, 2\]"):
        model(points[..., :1])
    with pytest.raises(ValueError, match=r"presence: expected shape \[2, 5\]"):
        model(points, torch.ones(2, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="points: expected dtype torch.float64"):
        model(points.float())
    with pytest.raises(port.ConfigError, match="did you mean 'n_votes'"):
        port.config.from_flat({"model": "constellation", "n_vote": 4})
    with pytest.raises(port.ConfigError, match="did you mean 'constellation'"):
        port.config.from_flat({"model": "constelation"})
    with pytest.raises(port.ConfigError, match="'ConstellationDecoder'"):
        port.config.from_flat({"model": "constellation", "klass": "ConstellationDecode"})
    with pytest.raises(port.ConfigError, match="no capsule dropout"):
        port.config.from_flat({"model": "constellation", "klass": "ConstellationDecoder",
                               "caps_dropout_rate": 0.3})
    with pytest.raises(ValueError, match="slots"):
        constellation_batches.PointSettings(slots=(0, 4))


def test_settings_make_the_round_trip() -> None:
    """Flat, nested and JSON spellings of a configuration are the same configuration."""
    for case in SPECIAL:
        config = port.config.from_arguments(case.arguments)
        assert port.config.from_flat(port.config.to_flat(config)) == config
        assert port.config.from_arguments(json.loads(config.to_json())) == config
        assert config.to_arguments() == json.loads(json.dumps(case.arguments))


def test_saved_model_comes_back(tmp_path) -> None:
    """Folder, weights and results."""
    model, (points, presence, *_) = tiny(klass="ConstellationDecoder", pdf="student"), batch()
    port.save(model, tmp_path / "model")
    again = port.load(tmp_path / "model")
    assert again.config == model.config and "Constellation" in (tmp_path / "model/README.md").read_text()
    assert torch.equal(again(points, presence).loss, model(points, presence).loss)


def test_any_number_of_points() -> None:
    """The model takes sets of any size, and their order does not matter."""
    model, (points, presence, *_) = tiny(), batch()
    for n in (1, 7):
        assert torch.isfinite(model(points[:, :n], presence[:, :n]).loss)
    order = torch.from_numpy(RNG.permutation(points.shape[1]))
    one, other = model(points, presence), model(points[:, order], presence[:, order])
    assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-12)


def test_without_presence_is_all_present() -> None:
    """The likelihood without presences is that with ones."""
    model, (points, presence, *_) = tiny(), batch()
    ones = torch.ones_like(presence)
    assert torch.allclose(model(points).scalars["log_prob"], model(points, ones).scalars["log_prob"],
                          rtol=1e-12)


def run(repair: str | None, **settings: object) -> port.Result:
    """A tiny model with one repair, on one batch with noise."""
    model, (points, presence, *_) = tiny(repairs=[repair] if repair else [], **settings), batch()
    noise = port.Noise.draw(torch.Generator().manual_seed(4), model.config, len(points),
                            dtype=torch.float64)
    return model(points, presence, noise, taps=True)


def test_q31_logits_of_the_network() -> None:
    """Faithful logits are the noise alone; repaired ones have the network's added."""
    def logits(repair: str | None) -> tuple[torch.Tensor, torch.Tensor]:
        taps = run(repair, klass="ConstellationDecoder").taps
        return taps["res/pres_logit_per_caps"], taps["obj_dec/all_params"][..., 0]

    faithful, own = logits(None)
    repaired, _ = logits("Q31")
    assert torch.allclose(repaired, faithful + own, rtol=1e-12) and own.abs().max() > 0


def test_q32_soft_presence() -> None:
    """Faithful presences are 0 or 1; repaired ones are the largest soft vote presence."""
    taps = run(None).taps
    assert set(taps["res/caps_presence_prob"].unique().tolist()) <= {0.0, 1.0}
    repaired = run("Q32")
    logits = repaired.taps["res/mixing_logits"][:, :-1]
    expected = logits.exp().reshape(*repaired.caps_presence_prob.shape, -1).amax(-1)
    assert torch.allclose(repaired.caps_presence_prob, expected, rtol=1e-12)
    assert repaired.caps_presence_prob.requires_grad


def test_q33_mixing_kl_counts() -> None:
    """The repaired KL is that from uniform over votes and dummy, and its weight changes the loss."""
    repaired = run("Q33", mixing_kl_weight=2.0)
    prob = repaired.taps["res/mixing_log_prob"].exp()
    expected = (prob * (prob * prob.shape[1]).log()).sum(1).mean()
    assert torch.allclose(repaired.scalars["mixing_kl"], expected, rtol=1e-10)
    assert torch.allclose(repaired.loss - run("Q33").loss, 2.0 * expected, rtol=1e-9)
    assert torch.equal(run(None, mixing_kl_weight=2.0).loss, run(None).loss)


def test_q35_posterior_of_capsules() -> None:
    """The repaired shares are those of present points and of whole capsules."""
    repaired, (points, presence, *_) = run("Q35"), batch()
    posterior = repaired.taps["res/posterior_mixing_probs"] * presence[..., None]
    share = posterior.sum(1).reshape(len(points), 3, -1).sum(-1) / presence.sum(
        1, keepdim=True).clamp(min=1)
    within, _ = losses.sparsity_loss("entropy", share)
    assert torch.allclose(repaired.scalars["posterior_within_sparsity_loss"], within, rtol=1e-12)
    assert not torch.allclose(run(None).scalars["posterior_within_sparsity_loss"], within)


def test_q36_flags_and_class_argument() -> None:
    """The flag for between is read by nothing; the class argument counts."""
    flags = {"model": "constellation", "prior_within_example_sparsity_weight": "3",
             "prior_between_example_sparsity_weight": "5"}
    losses = port.config.from_flat(flags).autoencoder
    assert losses.prior_between_example_sparsity_weight == 3.0
    losses = port.config.from_flat(
        flags | {"autoencoder.prior_between_example_sparsity_weight": 7}).autoencoder
    assert losses.prior_between_example_sparsity_weight == 7.0


def test_q38_student_runs() -> None:
    """What raises a TypeError in the original: heavier tails give far points more density."""
    model, far = tiny(pdf="student"), torch.full((1, 3, 2), 30.0, dtype=torch.float64)
    assert model.constellation_capsule.order_invariant_capsule_likelihood.df.shape == ()
    point, vote, scale = far[:, :1], torch.zeros(1, 1, 2).double(), torch.ones(1, 1).double()
    student = object_decoder.vote_log_prob(point, vote, scale, torch.tensor(4.0))
    assert student > object_decoder.vote_log_prob(point, vote, scale)
    assert torch.isfinite(model(far).loss)


@pytest.mark.parametrize("settings", [{"n_obj_caps_params": None}, {"noise_type": "normal"}])
def test_q39_documented_options_run(settings: dict) -> None:
    """What fails in the original although documented has gradients here."""
    found = run(None, **settings)
    found.loss.backward()
    assert torch.isfinite(found.loss)


def test_segmentation_by_hand() -> None:
    """Two patterns, one point wrong; absent points do not count; a swap of names does not matter."""
    found = evaluate.eval_segmentation(np.array([[2, 2, 0, 0, 1]]), np.array([[0, 0, 1, 1, 1]]),
                                       np.array([[1.0, 1.0, 1.0, 1.0, 1.0]]))
    assert found == 4 / 5
    assert evaluate.eval_segmentation(np.array([[2, 2, 0, 0, 1]]), np.array([[0, 0, 1, 1, 1]]),
                                      np.array([[1.0, 1.0, 1.0, 1.0, 0.0]])) == 1.0
