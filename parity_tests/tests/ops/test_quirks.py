"""The quirk registry: complete, faithful by default, and every repair does what it says.

The faithful setting is held against the recordings by test_goldens_*; here each repair is held
against its own definition, written out in NumPy, and must change the output.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests import oracles
from port.core import attention, losses, ops, preprocess, quirks
from port.data import dataset
from port.evaluation import clustering as evaluate
from port.evaluation import collected
from port.scae import object_decoder as objects
from port.scae import part_encoder
from port.training import loop as train

REPOSITORY = Path(__file__).resolve().parents[3]
RNG = np.random.default_rng(20190528)


def tensor(*shape: int, low: float | None = None, high: float = 1.0) -> torch.Tensor:
    """Random float64 tensor, normal or uniform in [low, high]."""
    values = RNG.standard_normal(shape) if low is None else RNG.uniform(low, high, shape)
    return torch.from_numpy(values)


def test_registry_is_complete() -> None:
    """At least fifteen, numbered without gaps, and every id in the code is registered."""
    ids = list(quirks.QUIRKS)
    assert len(ids) >= 15
    assert ids == [f"Q{i:02d}" for i in range(1, len(ids) + 1)]
    cited = {found for folder in ("port", "reference", "pipelines") for path in
             sorted((REPOSITORY / folder).rglob("*.py"))
             for found in re.findall(r"\bQ\d\d\b", path.read_text())}
    assert cited == set(ids)


@pytest.mark.parametrize("quirk", quirks.QUIRKS.values(), ids=list(quirks.QUIRKS))
def test_marked_where_it_happens(quirk: quirks.Quirk) -> None:
    """The file that the registry names marks the place with the quirk's id."""
    assert quirk.id in (REPOSITORY / "port" / quirk.file).read_text()
    assert (quirk.repaired is None) == (quirk.where is None)


def test_unknown_repair_names_the_nearest() -> None:
    with pytest.raises(port.ConfigError, match=r"Q26.*Q25"):
        port.Config(repairs=("Q26",))


def test_q01_log_presence_mask() -> None:
    """Repaired weights are presence · exp(q·k/√d), normalised; the faithful ones are one-hot."""
    queries, keys, values = tensor(2, 3, 4), tensor(2, 5, 4), tensor(2, 5, 6)
    presence = tensor(2, 5, low=0.1)
    expected = np.zeros((2, 3, 6))
    for b in range(2):
        for m in range(3):
            weights = [float(presence[b, n]) * np.exp(float(queries[b, m] @ keys[b, n]) / 2.0)
                       for n in range(5)]
            for n in range(5):
                expected[b, m] += weights[n] / sum(weights) * values[b, n].numpy()
    repaired = attention.qkv_attention(queries, keys, values, presence, mask="log_presence")
    np.testing.assert_allclose(repaired.numpy(), expected, rtol=1e-12)
    faithful = attention.qkv_attention(queries, keys, values, presence)
    most_present = values[torch.arange(2), presence.argmax(1)]
    np.testing.assert_array_equal(faithful.numpy(), most_present[:, None].expand(2, 3, 6).numpy())


def test_q02_transposed_pooling() -> None:
    """Repaired: dimension d of capsule k is pooled by map k. Faithful: the array is reshaped."""
    n_caps, n_dims = 3, 5
    feature_map = tensor(2, n_caps * n_dims + n_caps, 2, 4)
    flat = feature_map.flatten(2).numpy()
    expected = np.zeros((2, n_caps, n_dims))
    for b in range(2):
        for k in range(n_caps):
            weights = np.exp(flat[b, n_caps * n_dims + k])
            for d in range(n_dims):
                expected[b, k, d] = (weights / weights.sum() * flat[b, d * n_caps + k]).sum()
    repaired = part_encoder.attention_pool(feature_map, n_caps, n_dims, "transposed")[3]
    np.testing.assert_allclose(repaired.numpy(), expected, rtol=1e-12, atol=1e-14)
    faithful = part_encoder.attention_pool(feature_map, n_caps, n_dims)[3]
    np.testing.assert_allclose(faithful.numpy().reshape(2, n_dims, n_caps),
                               expected.transpose(0, 2, 1), rtol=1e-12, atol=1e-14)


def test_q03_normalised_mixing() -> None:
    """Repaired: a density, so more presence everywhere changes nothing. Faithful: it adds up."""
    votes, scales, x = tensor(2, 3, 4, 6), tensor(2, 3, 4, low=0.5), tensor(2, 4, 6)
    presence, dummy = tensor(2, 3, 4, low=0.2), tensor(1, 1, 4, 6)

    def log_prob(mixing: str) -> float:
        return float(objects.capsule_likelihood(votes, scales, presence, x, None, dummy,
                                                mixing).log_prob)

    expected = 0.0
    for b in range(2):
        for m in range(4):
            logits = [np.log(float(presence[b, o, m])) for o in range(3)] + [np.log(0.01)]
            total = np.log(sum(np.exp(logit) for logit in logits))
            terms = []
            for o in range(3):
                z = (x[b, m] - votes[b, o, m]).numpy() / float(scales[b, o, m])
                density = -0.5 * (z ** 2).sum() - 6 * np.log(float(scales[b, o, m]) * np.sqrt(2 * np.pi))
                terms.append(np.exp(logits[o] - total + density))
            expected += np.log(sum(terms) + np.exp(logits[3] - total) * 0.01) / 2
    assert log_prob("normalised") == pytest.approx(expected, rel=1e-12)
    assert abs(log_prob("faithful") - expected) > 0.1


def _taps(repairs: tuple[str, ...]) -> port.Result:
    config = port.config.from_flat({
        "canvas_size": 29, "n_part_caps": 4, "n_obj_caps": 3, "n_obj_caps_params": 5,
        "template_size": 5, "n_part_special_features": 2, "colorize_templates": True,
        "use_alpha_channel": True, "output_channels": [4, 4], "strides": [2, 2], "n_dims": 8,
        "n_output_dims": 16, "n_hiddens": 6, "repairs": repairs})
    model = port.ImageAutoencoder(config, seed=3).double()
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 1, 29, 29, generator=generator, dtype=torch.float64)
    noise = port.Noise.draw(generator, config, 2, dtype=torch.float64)
    return model(image, torch.tensor([1, 2]), noise, taps=True)


@pytest.mark.parametrize("repair", quirks.MODEL_REPAIRS)
def test_repair_changes_the_model(repair: str) -> None:
    """Each model repair reaches the model and changes a recorded value."""
    faithful, repaired = _taps(()).taps, _taps((repair,)).taps
    changed = [name for name in faithful if not torch.equal(faithful[name], repaired[name])]
    assert changed, repair


def test_q04_soft_vote_presence() -> None:
    """Repaired: probabilities whose maximum is caps_presence_prob. Faithful: zeros and ones."""
    soft = _taps(("Q04",)).taps
    torch.testing.assert_close(soft["res/vote_presence"].amax(2), soft["res/caps_presence_prob"],
                               rtol=0, atol=0)
    binary = _taps(()).taps["res/vote_presence"]
    assert set(binary.unique().tolist()) <= {0.0, 1.0}


def test_q25_pairs_examples() -> None:
    """Repaired: row (b, o) has the votes and the presences of example b."""
    taps = _taps(("Q25",)).taps
    votes, presence = taps["res/vote_presence"], taps["part_enc/presence"]
    for b in range(2):
        for o in range(3):
            torch.testing.assert_close(taps["per_caps_rec/presence_in"][b * 3 + o],
                                       votes[b, o] * presence[b], rtol=0, atol=0)
    mixed = _taps(()).taps["per_caps_rec/presence_in"]
    torch.testing.assert_close(mixed[1], votes[0, 1] * presence[1], rtol=0, atol=0)


def _split(n: int = 10) -> dataset.Split:
    images = torch.from_numpy(RNG.integers(0, 256, (n, 1, 20, 20), dtype=np.uint8))
    return dataset.Split(images, torch.arange(n) % 10)


def test_q06_q08_q27_protocols() -> None:
    """Clean evaluation draws no noise, centres the images and leaves none out."""
    config = port.config.from_flat({
        "canvas_size": 28, "n_part_caps": 3, "n_obj_caps": 4, "template_size": 5,
        "output_channels": [4, 4], "strides": [2, 2], "n_dims": 8, "n_output_dims": 16})
    model, split = port.ImageAutoencoder(config).eval(), _split()
    faithful = [collected.collect(model, split, 28, 4, seed, noise=True, whole_batches=True)
                for seed in (0, 1)]
    clean = [collected.collect(model, split, 28, 4, seed, noise=False, shift="centred")
             for seed in (0, 1)]
    assert len(faithful[0].labels) == 8 and len(clean[0].labels) == 10
    assert not np.array_equal(faithful[0].prior, faithful[1].prior)
    np.testing.assert_array_equal(clean[0].prior, clean[1].prior)
    centred = dataset.place(split.images, 28, None)
    np.testing.assert_array_equal(centred[:, :, 4:24, 4:24].numpy(), split.images.float().numpy() / 255)


def test_q07_learning_rate_decay() -> None:
    """Off by default; where asked for, the rate falls by the factor per so many steps."""
    def last_rate(**settings: float | str) -> float:
        config = port.config.from_flat({
            "canvas_size": 28, "n_part_caps": 2, "n_obj_caps": 2, "template_size": 5,
            "output_channels": [2, 2], "strides": [3, 3], "n_dims": 4, "n_output_dims": 8})
        trained = train.train(port.ImageAutoencoder(config), dataset.Dataset("random", _split(), _split(), 10),
                              train.Settings(batch_size=2, lr=1e-3, steps=3, log_every=3,
                                             held_out_every=0, **settings))
        return float(trained.optimizer.param_groups[0]["lr"])

    # The rate lies on the device in float32: half an ulp is 6e-8 of it.
    assert last_rate() == pytest.approx(1e-3, rel=6e-8)
    assert last_rate(lr_schedule="exponential", lr_decay=0.5, lr_decay_steps=1) == pytest.approx(
        1e-3 * 0.5 ** 2, rel=6e-8)


def test_q09_constant_counts_as_a_configuration_only() -> None:
    """Dropped with a warning on a command line, used as a configuration key."""
    with pytest.warns(UserWarning, match="Q09"):
        assert port.config.parse_flags(["--prior_within_example_constant=4.3"]) == {}
    config = port.config.from_flat({"prior_within_example_constant": 4.3})
    assert config.autoencoder.prior_within_example_constant == 4.3
    p = tensor(5, 7, low=0.0)
    within = losses.sparsity_loss("l2", p, 10, 4.3)[0]
    assert float(within) == pytest.approx(float(((p.sum(1) - 4.3) ** 2).sum() / 5), rel=1e-12)


def test_q18_broadcast() -> None:
    """The faithful sum gives [B, B, d]; one transform a call gives the points' own shape."""
    transform, points = tensor(2, 3, 3), tensor(2, 1, 2)
    assert ops.apply_transform(transform, points).shape == (2, 2, 2)
    assert ops.apply_transform(transform[0], points[0]).shape == (1, 2)


def test_q19_sobel_runs() -> None:
    """The function that cannot run in the original agrees with the plain loops, at both ranks."""
    for side in (8, 6):  # of 40 pixels the lower of the middle values, of 30 the upper
        image = tensor(2, 1, side, 5, low=0.0)
        expected = oracles.core.preprocess.normalized_sobel_edges(image.permute(0, 2, 3, 1).numpy())
        ours = preprocess.normalized_sobel_edges(image).permute(0, 2, 3, 1).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-12)


def test_q26_refit_and_transfer() -> None:
    """Faithful: clusters of the scored split itself. Repaired: clusters and matching from train."""
    train_x = np.concatenate([RNG.normal(0, 0.1, (20, 2)), RNG.normal(5, 0.1, (20, 2))])
    train_y = np.repeat([0, 1], 20)
    test_x, test_y = np.array([[0.0, 0.0], [0.3, 0.0]]), np.array([0, 1])
    refit = evaluate.cluster_classify(test_x, test_y, 2, evaluate.new_kmeans(2, 0))
    assert refit.acc == 1.0
    assert evaluate.cluster_transfer(train_x, train_y, test_x, test_y, 2, 0).acc == 0.5


def test_q28_order() -> None:
    """Faithful batches come in stored order; shuffled ones are another order of the same images."""
    def first_epoch(shuffle: bool) -> list[int]:
        stream = dataset.Batches(_split(), 5, 20, seed=1, shuffle=shuffle)
        return [int(label) for _ in range(2) for label in next(stream)[1]]

    assert first_epoch(False) == list(range(10))
    assert first_epoch(True) != list(range(10)) and sorted(first_epoch(True)) == list(range(10))
