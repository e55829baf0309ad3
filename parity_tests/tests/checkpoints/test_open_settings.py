"""What `port.checkpoints.open_settings` says of a setting is what changing it does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import port
from parity_tests.harness import every_family
from port.checkpoints import open_settings
from port.constellation.config import SECTIONS as OF_POINTS
from port.scae.config import SECTIONS as OF_IMAGES
from port.scae.noise import Noise

KINDS = dict(zip(open_settings.KINDS, (OF_IMAGES, OF_POINTS), strict=True))
WORDS = {"part_encoder.encoder_type": "conv", "obj_decoder.noise_type": None, "autoencoder.target": "sobel",
         "autoencoder.vote_type": "soft", "autoencoder.pres_type": "soft", "obj_decoder.pdf": "student",
         "autoencoder.prior_sparsity_loss_type": "kl", "autoencoder.posterior_sparsity_loss_type": "l2"}
# Weights that act only where something else is on.
TOGETHER = {"autoencoder.mixing_kl_weight": {"repairs": ["Q33"]}}


def open_of(kind: str) -> list[str]:
    """What a checkpoint of a tiny model leaves open, as conversion finds it."""
    arrays = port.to_tf(every_family.model(kind))
    needed = ("canvas_size", "strides", "template_nonlin", "color_nonlin")
    said = {name: value for name, value in every_family.SMALL[kind].items() if name in needed}
    return list(port.from_tf(arrays, said).config.unset)


def another(place: str, value: Any) -> Any:
    """A value that the setting does not have."""
    if place in WORDS:
        return WORDS[place]
    if isinstance(value, bool):
        return not value
    if place.endswith("rate"):
        return 0.5
    return value * 3 + 1


def models(kind: str, place: str) -> list[port.ImageAutoencoder]:
    """Two models with the same weights, one of which has another value at `place`."""
    arguments = every_family.model(kind).config.to_arguments() | TOGETHER.get(place, {})
    section, name = place.split(".")
    made = [port.build(port.config.from_arguments(arguments), seed=1).eval()]
    arguments[section][name] = another(place, getattr(getattr(made[0].config, section), name))
    made.append(port.build(port.config.from_arguments(arguments), seed=1).eval())
    made[1].load_state_dict(made[0].state_dict(), strict=False)
    return made


def answers(model: port.ImageAutoencoder, drawn: bool) -> dict[str, Tensor]:
    """Every number of a forward pass but the loss and its terms, by name; and beside them the loss's gradients."""
    given, generator = every_family.examples(model, 6), torch.Generator().manual_seed(5)
    more = {"noise": Noise.draw(generator, model.config, 6) if drawn else None}
    if model.config.kind != "constellation":
        more |= {"label": torch.arange(6) % 2, "pictures": True}
    found = model(given, **more)
    shown = {name: value for name, value in found._asdict().items() if isinstance(value, Tensor) and name != "loss"}
    shown |= {name: value for name, value in (getattr(found, "pictures", None) or {}).items() if name != "target"}
    found.loss.backward()
    return shown | {"loss": found.loss, **{f"grad {name}": p.grad for name, p in model.named_parameters()
                                           if p.grad is not None}}


def changed(kind: str, place: str, drawn: bool) -> set[str]:
    """Names of what is no longer the same, `loss` for the loss or a gradient."""
    one, other = (answers(model, drawn) for model in models(kind, place))
    return {"loss" if name == "loss" or name.startswith("grad ") else name for name in one | other
            if name not in one or name not in other or not torch.equal(one[name], other[name])}


@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind in KINDS for place in open_of(kind)])
def test_what_it_changes(kind: str, place: str) -> None:
    """A setting of the loss leaves every answer alone, one of the noise does so without noise, any other does not."""
    without = changed(kind, place, drawn=False)
    if place in open_settings.LOSS:
        assert without == {"loss"}
    elif place in open_settings.NOISE:
        assert not without and changed(kind, place, drawn=True)
    else:
        assert without - {"loss"}


@pytest.mark.parametrize("kind", KINDS)
def test_names(kind: str) -> None:
    """Every name that is told apart is a setting, and everything that is open stands in one sentence."""
    names = {f"{section}.{name}" for part in KINDS.values() for section, cls in part.items()
             for name in cls.__dataclass_fields__}
    assert names >= open_settings.LOSS | open_settings.NOISE
    left = open_of(kind)
    said = open_settings.sentences(left)
    named = [word.rstrip(",") for line in said for word in line.split() if "." in word]
    assert len(said) == 3 and sorted(named) == sorted(left)
    assert open_settings.sentences([]) == []
