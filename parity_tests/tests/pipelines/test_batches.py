"""Where images come to lie on the canvas, and what a step of their stream asks of the device."""

from __future__ import annotations

import pytest
import torch

from port.data import dataset


def white(n: int) -> dataset.Split:
    return dataset.Split(torch.full((n, 1, 3, 3), 255, dtype=torch.uint8), torch.zeros(n, dtype=torch.int64))


def offsets(shift: str) -> torch.Tensor:
    """How often each row is the topmost of a white square of 3 on a canvas of 6."""
    image, _ = next(dataset.Batches(white(20_000), 20_000, 6, seed=1, shift=shift))
    assert torch.all(image.sum((1, 2, 3)) == 9)
    return torch.bincount(image.amax((1, 3)).argmax(1), minlength=4) / len(image)


def test_offsets_of_the_original_are_not_uniform_and_the_clean_ones_are() -> None:
    """Shifts -3..3 give offsets ceil((3 - k) / 2): 0 once in seven, 1, 2 and 3 twice."""
    for shift, expected in (("original", [1, 2, 2, 2]), ("uniform", [1, 1, 1, 1]),
                            ("centred", [0, 0, 1, 0])):
        share = torch.tensor(expected) / sum(expected)
        torch.testing.assert_close(offsets(shift), share, rtol=0, atol=0.015)


def test_an_unknown_shift_is_refused() -> None:
    with pytest.raises(dataset.DataError, match="uniform"):
        dataset.Batches(white(3), 1, 4, seed=0, shift="random")


def test_a_step_of_the_stream_asks_nothing_of_the_device(monkeypatch) -> None:
    """Within an epoch no value is read back: on a GPU that would wait for the queue."""
    batches = dataset.Batches(white(64), 8, 6, seed=0)

    def read_back(*args):
        raise AssertionError("a value was read from the device")
    for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, read_back)
    for _ in range(7):
        image, _ = next(batches)
    monkeypatch.undo()
    assert image.shape == (8, 1, 6, 6)
