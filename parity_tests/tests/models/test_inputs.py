"""What a model or a metric is given and is something else: refused in words, by every family alike."""

from __future__ import annotations

import inspect
import typing

import numpy as np
import pytest
import torch

import port
from parity_tests.harness.runs import TINY
from port.capsnet import settings as capsnet_settings
from port.capsnet.network import CapsNet
from port.core import inputs, ops
from port.core.probe import ClassificationProbe
from port.data import dataset
from port.em import losses as em_losses
from port.em import settings as em_settings
from port.em.network import MatrixCapsules
from port.evaluation import classes as evaluate_classes
from port.evaluation import clustering as evaluate
from port.evaluation import collected, labels
from port.evaluation.labels import NotMeasurable
from port.scae import model as scae_model
from port.training import loop as train
from port.training.schedule import Settings
from reference.scae import model as reference_model

CLASSES = 10
SCAE = TINY | {"canvas_size": 18}
CAPSNET = {"model": "capsnet", "canvas": 18, "kernel": 3, "conv1_channels": 4, "primary_types": 2,
           "primary_atoms": 4, "class_atoms": 4, "decoder": [8]}
EM = {"model": "em", "canvas": 18, "channels": 4, "types": [2, 2, 3], "classes": CLASSES}
FLAT = {"scae": SCAE, "pcae": {"model": "pcae"} | {key: value for key, value in SCAE.items() if key in (
    "canvas_size", "n_channels", "output_channels", "strides", "n_part_caps", "template_size")},
        "hierarchy": {"model": "hierarchy"} | SCAE, "capsnet": CAPSNET, "em": EM}
IMAGE = torch.rand(2, 1, 18, 18, generator=torch.Generator().manual_seed(0))
LABEL = torch.tensor([3, 9])
_built: dict[str, torch.nn.Module] = {}


def model(name: str) -> torch.nn.Module:
    """A tiny model of a family, built once."""
    if name not in _built:
        _built[name] = port.build(port.config.from_flat(FLAT[name]))
    return _built[name]


# What is given → words that the refusal holds. Bytes and other types are asked of the check itself below,
# since the type checks of a test run come before it.
IMAGES = {
    "0..255": (IMAGE * 255, ("[0, 1]", "divide by 255")),
    "below 0": (IMAGE - 0.5, ("[0, 1]",)),
    "NaN": (IMAGE * float("nan"), ("[0, 1]", "nan")),
    "one infinite pixel": (torch.where(torch.arange(18) == 3, torch.inf, IMAGE), ("[0, 1]", "inf")),
    "channels last": (IMAGE.permute(0, 2, 3, 1), ("channels last", "permute(0, 3, 1, 2)")),
    "no channel axis": (IMAGE[:, 0], ("image[:, None]",)),
    "another size": (torch.rand(2, 1, 16, 16), ("18, 18", "[2, 1, 16, 16]")),
    "colours": (torch.rand(2, 3, 18, 18), ("1, 18, 18",)),
    "doubles": (IMAGE.double(), ("float32", "float64")),
    "an empty batch": (IMAGE[:0], ("empty batch",)),
}
LABELS = {
    "one-hot": (torch.eye(CLASSES)[LABEL], ("argmax(1)",)),
    "one-hot of integers": (torch.eye(CLASSES, dtype=torch.int64)[LABEL], ("argmax(1)",)),
    "a column": (LABEL[:, None], ("label[:, 0]",)),
    "1.9": (torch.tensor([1.9, 3.0]), ("integers", "float32")),
    "bool": (torch.tensor([True, False]), ("integers", "bool")),
    "-100": (torch.tensor([3, -100]), ("-100",)),
    "another number of them": (torch.tensor([3]), ("[2]", "[1]")),
    "a scalar": (torch.tensor(3), ("[2]", "[]")),
}
OUTSIDE = {"from 1": (torch.tensor([1, CLASSES]), ("0..9", "subtract 1")),
           "far outside": (torch.tensor([0, 255]), ("0..9", "255"))}


@pytest.mark.parametrize("name", FLAT)
def test_images(name: str) -> None:
    """Every family refuses the same images, and takes the right one."""
    model(name)(IMAGE, LABEL)
    for what, (image, words) in IMAGES.items():
        with pytest.raises(ValueError) as caught:
            model(name)(image, LABEL[:len(image)])
        assert all(word in str(caught.value) for word in words), (what, str(caught.value))


@pytest.mark.parametrize("name", FLAT)
def test_labels(name: str) -> None:
    """Every family refuses the same labels; part capsules alone know no classes."""
    for what, (label, words) in {**LABELS, **({} if name == "pcae" else OUTSIDE)}.items():
        with pytest.raises(ValueError) as caught:
            model(name)(IMAGE, label)
        assert all(word in str(caught.value) for word in words), (what, str(caught.value))
    wanted = model(name)(IMAGE, LABEL).loss
    for dtype in (torch.int32, torch.uint8, torch.int16):
        assert torch.equal(model(name)(IMAGE, LABEL.to(dtype)).loss, wanted)


@pytest.mark.parametrize("name", [*FLAT, "constellation"])
def test_the_callers_tensors_stay_as_they_are(name: str) -> None:
    """A model that records its intermediates watches a tensor of its own, where gradients are to be taken."""
    if name == "constellation":
        network, given = port.build(port.config.from_flat({"model": name})), (torch.rand(2, 11, 2), torch.ones(2, 11))
    else:
        network, given = model(name), (IMAGE.clone(), LABEL.clone())
    before = [tensor.clone() for tensor in given]
    taps = {"taps": True} if "taps" in inspect.signature(network.forward).parameters else {}
    network(*given, **taps).loss.backward()
    for tensor, kept in zip(given, before, strict=True):
        assert not tensor.requires_grad and tensor.grad is None and torch.equal(tensor, kept)


@pytest.mark.parametrize("name", ["pcae", "constellation"])
def test_what_a_result_lacks_may_be_missing(name: str) -> None:
    """A field that some model leaves empty says so in its type, on both sides."""
    network = port.build(port.config.from_flat(FLAT.get(name, {"model": name})))
    result = network(IMAGE if name == "pcae" else torch.rand(2, 11, 2))
    assert any(value is None for value in result)
    for side in (scae_model, reference_model):
        hints = typing.get_type_hints(side.Result)
        assert all(type(None) in typing.get_args(hints[field]) for field, value in result._asdict().items()
                   if value is None and field in hints)


def test_the_networks_without_a_configuration() -> None:
    """CapsNet and matrix capsules on their own look at the same things."""
    net = CapsNet(capsnet_settings.preset("official"))
    for given in ((torch.rand(2, 1, 28, 28) * 255, LABEL), (torch.rand(2, 1, 32, 32), LABEL),
                  (torch.rand(2, 1, 28, 28), LABEL + 1), (torch.rand(0, 1, 28, 28), LABEL[:0])):
        with pytest.raises(ValueError):
            net(*given)
    em = MatrixCapsules(em_settings.preset("paper", channels=4, types=(2, 2, 3)), np.random.default_rng(0))
    for image in (torch.rand(2, 1, 20, 20) * 255, torch.rand(2, 3, 20, 20), torch.rand(0, 1, 20, 20)):
        with pytest.raises(ValueError):
            em(image)
    with pytest.raises(ValueError, match="0..4"):
        em.loss(torch.rand(2, 5), torch.tensor([0, 5]), 0)


def test_the_losses_themselves() -> None:
    """A probe leaves no example out, and cuts no label down; nor does the spread loss."""
    probe = ClassificationProbe(3, CLASSES, np.random.default_rng(0))
    with pytest.raises(IndexError, match="-100"):
        probe(torch.rand(2, 3), torch.tensor([1, -100]))
    for label in (torch.tensor([1.9, 2.0]), torch.eye(CLASSES)[LABEL], LABEL[:, None]):
        for call in (lambda label=label: probe(torch.rand(2, 3), label),
                     lambda label=label: em_losses.spread_loss(torch.rand(2, CLASSES), label, 0.2)):
            with pytest.raises((ValueError, TypeError)):
                call()


def test_other_types() -> None:
    """Bytes and halves, which the type checks of test runs would refuse before."""
    for image, word in ((torch.zeros(2, 1, 18, 18, dtype=torch.uint8), "divide bytes by 255"),
                        (IMAGE.half(), "float16")):
        with pytest.raises(ValueError, match=word):
            inputs.check_image(image, 1, 18, torch.float32)


def test_points() -> None:
    """Constellations: not finite, presences outside [0, 1], an empty batch."""
    points, there = torch.rand(2, 11, 2), torch.ones(2, 11)
    inputs.check_points(points, there, 2, torch.float32)
    for bad in ((points * float("nan"), there), (points, there * 2), (points[:0], there[:0]),
                (points.double(), there), (points, there[:, :3])):
        with pytest.raises(ValueError):
            inputs.check_points(*bad, 2, torch.float32)


def test_no_value_is_read_while_a_graph_is_traced() -> None:
    """A compiled forward pass reads no value, so there is no break in its graph."""
    def check(image, label):
        inputs.check_image(image, 1, 18, torch.float32)
        return inputs.check_labels(label, 2, CLASSES) + 1
    found = torch.compile(check, backend="eager", fullgraph=True)(IMAGE * 255, LABEL)
    assert torch.equal(found, LABEL + 1)


def test_half_precision() -> None:
    """Weights in float16: the mask of 1e32 (Q01) and the logarithm of 0 (Q14) stay numbers."""
    half = port.build(port.config.from_flat(SCAE)).half()
    found = half(IMAGE.half(), LABEL)
    whole = port.build(port.config.from_flat(SCAE))(IMAGE, LABEL)
    # Half the digits of float16 are left after a few hundred roundings.
    assert found.loss.item() == pytest.approx(whole.loss.item(), rel=0.03)
    found.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in half.parameters() if p.grad is not None)
    low = ops.safe_log(torch.tensor([0.0, 1.0, 0.5], dtype=torch.float16))
    assert low.dtype == torch.float16 and torch.isfinite(low).all() and low[1] == 0


    with pytest.raises(ValueError, match="float16"):
        port.build(port.config.from_flat(EM)).half()(IMAGE.half(), LABEL)


# ------------------------------------------------------------------------------------- data sets

def test_a_split_holds_bytes_and_class_numbers() -> None:
    """Images in [0, 1] would be divided by 255 once more."""
    images = torch.zeros(4, 1, 18, 18, dtype=torch.uint8)
    for given in ((images.float(), torch.arange(4)), (images[:, 0], torch.arange(4)),
                  (images, torch.eye(4)), (images, torch.arange(3)), (images, torch.rand(4))):
        with pytest.raises((dataset.DataError, TypeError)):
            dataset.Split(*given)


@pytest.mark.parametrize("name", ["scae", "capsnet", "em"])
def test_labels_outside_the_classes_do_not_train(name: str) -> None:
    """Looked at once, before the first step; so does an evaluation before its first batch."""
    split = dataset.Split((IMAGE * 255).to(torch.uint8), torch.tensor([3, 10]))
    with pytest.raises(dataset.DataError, match=r"0\.\.9.*n_classes"):
        train.train(model(name), dataset.Dataset("mine", split, split, 11), Settings(batch_size=2, steps=1))
    with pytest.raises(dataset.DataError, match=r"0\.\.9"):
        if name == "scae":
            collected.collect(model(name), split, 18, 2, 0, False)
        else:
            evaluate_classes.collect(model(name), split, 2)


def test_after_training_the_range_is_looked_at_again() -> None:
    """Training takes bytes and does without; what comes later may be anything."""
    split = dataset.Split((IMAGE * 255).to(torch.uint8), LABEL)
    small = port.build(port.config.from_flat(SCAE))
    train.train(small, dataset.Dataset("mine", split, split), Settings(batch_size=2, steps=1))
    with pytest.raises(ValueError, match="divide by 255"):
        small(IMAGE * 255)


# --------------------------------------------------------------------------------------- metrics

Y = np.arange(40) % 10
WRONG = {"from 1": Y + 1, "-100": np.where(Y == 3, -100, Y), "one-hot": np.eye(10, dtype=np.int64)[Y],
         "a column": Y[:, None], "floats": Y + 0.9, "nothing": Y[:0], "bool": Y > 3, "words": Y.astype(str)}


@pytest.mark.parametrize("what", WRONG)
def test_labels_of_a_metric(what: str) -> None:
    """No metric takes them, on either side."""
    x, wrong = np.eye(10)[Y], WRONG[what]
    with pytest.raises(ValueError):
        labels.class_numbers(wrong, 10)
    calls = [lambda: evaluate.bipartite_match(Y, wrong, 10), lambda: evaluate.bipartite_match(wrong, Y, 10),
             lambda: evaluate.cluster_transfer(x, wrong, x, Y, 10, 0),
             lambda: evaluate.cluster_transfer(x, Y, x, wrong, 10, 0),
             lambda: evaluate.cluster_classify(x, wrong, 10, evaluate.new_kmeans(10, 0))]
    for call in calls:
        with pytest.raises((ValueError, TypeError)):
            call()


def test_a_perfect_clustering_has_every_example_right() -> None:
    """Under either convention, once it is said; classes by name may be any integers."""
    assert evaluate.bipartite_match(Y, Y, 10).acc == 1.0
    assert evaluate.bipartite_match(Y + 1, Y + 1).acc == 1.0
    assert evaluate.bipartite_match(Y.astype(np.int32), Y, 10).acc == 1.0
    assert evaluate.cluster_transfer(np.eye(10)[Y], Y, np.eye(10)[Y], Y, 10, 0).acc == 1.0


RANDOM = np.random.default_rng(0)
# Features whose map ended in a segmentation fault or an error within scikit-learn.
NO_MAP = {"no spread": np.ones((50, 10)), "zeros": np.zeros((20, 4)), "one feature": RANDOM.random((50, 1)),
          "two examples": RANDOM.random((2, 10)), "NaN": np.full((20, 10), np.nan),
          "squares overflow": 1e200 * RANDOM.standard_normal((20, 4)),
          "squares underflow": 1e-200 * RANDOM.standard_normal((20, 4)),
          "the same in float32": np.full((40, 10), 0.3, np.float32)}


@pytest.mark.parametrize("what", NO_MAP)
def test_no_map_of_what_does_not_spread(what: str) -> None:
    with pytest.raises(NotMeasurable):
        evaluate.tsne(NO_MAP[what], 0)


def test_what_cannot_be_measured_says_why() -> None:
    """Fewer examples than clusters, one class, NaN: a reason, not an error of a library."""
    x = RANDOM.random((40, 3))
    for call, word in ((lambda: evaluate.cluster_transfer(x[:5], Y[:5], x, Y, 10, 0), "5 examples"),
                       (lambda: evaluate.cluster_classify(x[:5], Y[:5], 10, evaluate.new_kmeans(10, 0)),
                        "10 clusters"),
                       (lambda: evaluate.logistic_probe(x, np.zeros(40, int), x), "one class"),
                       (lambda: evaluate.logistic_probe(x * np.nan, Y, x), "NaN"),
                       (lambda: evaluate.cluster_transfer(x, Y, x * np.inf, Y, 10, 0), "infinity")):
        with pytest.raises(NotMeasurable, match=word):
            call()
