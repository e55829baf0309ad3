"""Random draws of a forward pass, as arguments: the module itself never draws.

`raw_j` are in the order in which the original draws them, as in the recordings. Uniform draws are
raw (scaled inside the model), logistic, normal and Bernoulli ones are finished.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from port.configuration.protocol import Configuration


class Draw(NamedTuple):
    """One draw: where it is used, its kind, its shape without the batch axis, its scale or rate."""

    use: str
    kind: str
    shape: tuple[int, ...]
    size: float = 0.0


def noise_plan(config: Configuration) -> list[Draw]:
    """The draws of one forward pass in order.

    Args:
        config: decides which there are: part presence, attention dropout (two masks a layer),
            capsule dropout, capsule presence, vote presence; the last four again for a third level.

    Returns:
        One `Draw` per `raw_j`.

    Source: order of `tf.random` calls in the original's graph.
    """
    plan, n_tokens = [], getattr(config, "n_points", 0)
    part = getattr(config, "part_encoder", None)
    if part is not None:
        n_tokens = part.n_caps
        if part.noise_scale > 0:
            plan.append(Draw("part", "uniform01", (n_tokens,)))
    for prefix, names in (("", ("obj_encoder", "obj_decoder")),
                          ("upper_", ("upper_encoder", "upper_decoder"))):
        encoder, decoder = (getattr(config, name, None) for name in names)
        if decoder is None:
            continue
        if encoder.dropout_rate > 0:
            plan += [Draw(f"{prefix}attention", "keep_attention", (n_tokens, encoder.n_dims),
                          encoder.dropout_rate) for _ in range(2 * encoder.n_layers)]
        if decoder.caps_dropout_rate > 0:
            plan.append(Draw(f"{prefix}caps_mask", "keep_caps", (decoder.n_caps, 1),
                             decoder.caps_dropout_rate))
        if decoder.noise_type is not None:
            kind, size = decoder.noise_type, decoder.noise_scale
            plan.append(Draw(f"{prefix}caps", kind, (decoder.n_caps, 1), size))
            plan.append(Draw(f"{prefix}vote", kind, (decoder.n_caps, decoder.n_votes), size))
        n_tokens = decoder.n_caps
    return plan


class Noise:
    """The raw draws of one forward pass: `Noise(raw_0=…, raw_1=…, raw_2=…)`.

    Args:
        raw_0: part presence, uniforms `[B, K]` in [0, 1).
        raw_1: capsule presence, uniforms `[B, O, 1]` in [-½, ½); with capsule dropout the mask.
        raw_2, …: as `noise_plan` lists them.

    Raises:
        TypeError: an argument of another name, or one left out between two.
    """

    def __init__(self, **raw: Tensor) -> None:
        expected = [f"raw_{j}" for j in range(len(raw))]
        if raw.keys() != set(expected):  # in any order: raw_10 is sorted before raw_2
            raise TypeError(f"Noise takes raw_0, raw_1, … without gaps; {', '.join(sorted(raw))} given")
        self.raw = tuple(torch.as_tensor(raw[name]) for name in expected)

    @classmethod
    def draw(cls, generator: torch.Generator, config: Configuration, batch_size: int,
             device: torch.device | str | None = None, dtype: torch.dtype = torch.float32) -> Noise:
        """Draw everything that one forward pass of `config` needs.

        Args:
            generator: the source of randomness, on `device`.
            config: see `noise_plan`.
            batch_size: B.
            device: where the draws are made; the generator's by default.
            dtype: of the draws.
        """
        device = generator.device if device is None else device
        raw = {}
        for j, (_, kind, shape, scale) in enumerate(noise_plan(config)):
            size = (batch_size, *shape)
            if kind == "normal":
                value = torch.randn(size, generator=generator, device=device, dtype=dtype) * scale
            else:
                u = torch.rand(size, generator=generator, device=device, dtype=dtype)
                if kind == "uniform01":
                    value = u
                elif kind == "uniform":
                    value = u - 0.5
                elif kind == "logistic":
                    # The smallest draw is 0; half a step of float32's grid keeps the logit finite.
                    u = u.clamp(2.0 ** -25, 1.0 - 2.0 ** -24)
                    value = scale * (torch.log(u) - torch.log1p(-u))
                else:
                    value = (u >= scale).to(dtype)
            raw[f"raw_{j}"] = value
        return cls(**raw)

    def assign(self, config: Configuration, batch_size: int) -> dict[str, Tensor | list[Tensor]]:
        """The draws by use; attention masks as a list.

        Raises:
            ValueError: their number or a shape does not fit the configuration.
        """
        plan = noise_plan(config)
        if len(plan) != len(self.raw):
            raise ValueError(f"noise: {len(self.raw)} raw tensors given, this configuration draws "
                             f"{len(plan)}: " + ", ".join(f"raw_{j} {d.use} {['B', *d.shape]}"
                                                          for j, d in enumerate(plan)))
        uses: dict[str, Tensor | list[Tensor]] = {}
        for j, (draw, raw) in enumerate(zip(plan, self.raw, strict=True)):
            if tuple(raw.shape) != (batch_size, *draw.shape):
                raise ValueError(f"noise raw_{j} ({draw.use}): shape {tuple(raw.shape)}, expected "
                                 f"{(batch_size, *draw.shape)}")
            if draw.kind == "keep_attention":
                uses.setdefault(draw.use, []).append(raw)
            else:
                uses[draw.use] = raw
        return uses

    def to(self, *args, **kwargs) -> Noise:
        """The draws on another device or in another dtype, as `Tensor.to`."""
        return self.map(lambda raw: raw.to(*args, **kwargs))

    def map(self, function: Callable[[Tensor], Tensor]) -> Noise:
        """The draws after a function of each, to take a part of the batch for instance."""
        return Noise(**{f"raw_{j}": function(raw) for j, raw in enumerate(self.raw)})

    def __repr__(self) -> str:
        return "Noise(" + ", ".join(f"raw_{j}: {tuple(r.shape)}" for j, r in enumerate(self.raw)) + ")"


