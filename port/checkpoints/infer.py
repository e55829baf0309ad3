"""The architecture of an original checkpoint, from the names and shapes of its variables alone.

`port.checkpoints.complete` joins what is found here with what the user says into a configuration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from port import config as configuration
from port.checkpoints import infer_routing
from port.checkpoints import strides as grids
from port.checkpoints.programs import DUMMY_VOTE, VOTE_SCALE_BIAS, candidates
from port.checkpoints.tensor_bundle.errors import printable
from port.config import FLAT, SECTIONS
from port.constellation import config as config_constellation
from port.core.variable_table import ConversionError
from port.scae.config import OURS

Shapes = Mapping[str, tuple[int, ...]]

CAPSULE_LAYER = "image_capsule/capsule_layer"
MLP_ENCODER = "mlp_encoder/mlp"  # of no original: the ablation without a set transformer


class InferenceError(ConversionError):
    """Variables that are no model of the original; the message names the first that does not fit."""


@dataclass(frozen=True)
class Inference:
    """What names and shapes tell.

    Attributes:
        model: kind of the configuration.
        known: flat setting → value.
        grid: side of the part encoder's embedding, None for a constellation.
        canvas_sizes: sides of the canvas that give this grid, with the original's strides or, for
            another number of convolutions, with any strides of 1 and 2.
        assumed: flat setting → the original's fixed value that no shape contradicts.
        needed: settings of a routing ancestor that have to be given, each with what is possible.
    """

    model: str
    known: dict[str, Any]
    grid: int | None = None
    canvas_sizes: tuple[int, ...] = ()
    assumed: dict[str, Any] = field(default_factory=dict)
    needed: dict[str, str] = field(default_factory=dict)

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernel of each convolution; a constellation model has none."""
        if self.model != "scae":
            return ()
        return grids.each(self.known["kernel_shapes"], len(self.known["output_channels"]))

    @property
    def required(self) -> dict[str, str]:
        """Settings that have to be given, each with what is possible."""
        if self.model != "scae":
            return dict(self.needed)
        wanted = {"template_nonlin": either(configuration.CHOICES["template_nonlin"])}
        if self.known["colorize_templates"]:
            wanted["color_nonlin"] = either(configuration.CHOICES["color_nonlin"])
        if "canvas_size" not in self.known:
            wanted["canvas_size"] = either(self.canvas_sizes)
        return wanted

    @property
    def unknown(self) -> list[str]:
        """Every setting that names and shapes do not tell, the required ones first."""
        if self.model in infer_routing.INFERENCES:
            rest = infer_routing.names(self.model) - {*self.known, *self.needed}
            return [*self.needed, *sorted(rest)]
        if self.model != "scae":
            names = {config_constellation.flat_name(*places[0])
                     for places in config_constellation.FLAT.values()} - {"repairs", "n_points"}
            return sorted(names - set(self.known))
        names = {configuration.flat_name(*places[0])
                 for places in FLAT.values()} - {"repairs"}.union(*OURS.values())
        if not self.known["colorize_templates"]:
            names.discard("color_nonlin")
        return [*self.required, *sorted(names - set(self.known) - set(self.required))]


def kind_of(names: Collection[str]) -> str:
    """The kind of model that variables belong to, such as `scae`.

    Raises:
        InferenceError: none of the original's, or both mixed.
    """
    found = candidates(names)
    if len(found) != 1:
        raise InferenceError(
            f"variables of {found[0].program} and of {found[1].program} are mixed" if found else
            "no variable of a stacked capsule autoencoder is among " + _some(names))
    return found[0].kind


def infer(shapes: Shapes, with_slots: Collection[str] | None = None) -> Inference:
    """Read the architecture.

    Args:
        shapes: name → shape of the model's variables (no slots, no averages, no step).
        with_slots: the variables that have optimizer slots; None or empty where none has.

    Raises:
        InferenceError: not a model of the original, or incomplete.
    """
    kind = kind_of(shapes)
    look = _Look(shapes)
    if kind == "constellation":
        return Inference("constellation", _constellation(look))
    if kind in infer_routing.INFERENCES:
        known, assumed, needed = infer_routing.INFERENCES[kind](look, InferenceError)
        return Inference(kind, known, assumed=assumed, needed=needed)
    known = _parts(look) | _objects(look) | _probes(look)
    if with_slots:
        known["learn_vote_scale"] = VOTE_SCALE_BIAS in with_slots
        if DUMMY_VOTE in with_slots:
            known["vote_type"] = "soft"  # else no gradient reaches the dummy vote
    grid = known.pop("grid")
    kernels = grids.each(known["kernel_shapes"], len(known["output_channels"]))
    strides = grids.strides_possible(len(kernels))
    sizes = tuple(sorted({size for s in strides for size in grids.canvases(grid, kernels, s)}))
    # The original's code fixes these, or knows nothing of them; no shape shows them.
    ours = {name: SECTIONS[section].__dataclass_fields__[name].default
            for section, names in OURS.items() for name in names if name not in known}
    assumed: dict[str, Any] = {"paddings": "VALID"} | ours
    if len(strides) == 1:
        assumed["strides"] = strides[0]
    if len(sizes) == 1:
        known["canvas_size"] = sizes[0]
    return Inference("scae", known, grid, sizes, assumed)


class _Look:
    """Shapes by name; what is missing or of another rank is an error that names it."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes = shapes

    def __call__(self, name: str, rank: int) -> tuple[int, ...]:
        if name not in self.shapes:
            raise InferenceError(f"the variable {name} is missing")
        shape = tuple(self.shapes[name])
        if len(shape) != rank or 0 in shape:
            raise InferenceError(f"{name}: shape {list(shape)} where {rank} axes are expected")
        return shape

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def count(self, stem: str, ending: str, first: str = "") -> int:
        """How many of `<stem><first><ending>`, `<stem>_1<ending>`, … there are, without a gap."""
        found = {match[1] for name in self.shapes
                 if (match := re.fullmatch(re.escape(stem) + r"((?:_\d+)?)" + re.escape(ending), name))}
        for number in range(len(found)):
            if (f"_{number}" if number else first) not in found:
                raise InferenceError(f"the variable {stem}_{number}{ending} is missing" if number else
                                     f"the variable {stem}{first}{ending} is missing")
        return len(found)


def _parts(look: _Look) -> dict[str, Any]:
    """Convolutions, head and templates."""
    n_layers = look.count("conv_net_2d/conv_2d", "/w", "_0")
    kernels, widths, channels = [], [], None
    for i in range(n_layers):
        height, width, before, after = look(f"conv_net_2d/conv_2d_{i}/w", 4)
        if height != width:
            raise InferenceError(f"conv_net_2d/conv_2d_{i}/w: a kernel of {height}×{width} is not square")
        channels = before if channels is None else channels
        kernels.append(height)
        widths.append(after)
    if not widths:
        raise InferenceError("the variable conv_net_2d/conv_2d_0/w is missing")
    n_blocks = look.count("conv_net_2d/residual", "/conv_2d/w")
    if n_blocks % n_layers:
        raise InferenceError(f"conv_net_2d/residual: {n_blocks} blocks for {n_layers} convolutions")
    decoder = "template_based_image_decoder"
    _, n_parts, template_height, template_width, template_channels = look(f"{decoder}/templates", 5)
    if template_channels != channels:
        raise InferenceError(f"{decoder}/templates has {template_channels} channels, "
                             f"conv_net_2d/conv_2d_0/w takes {channels}")
    colour = f"{decoder}/mlp/linear_0/w" in look
    mlp = f"{MLP_ENCODER}/linear_0/w" in look
    tokens, beyond = (divmod(look(f"{MLP_ENCODER}/linear_0/w", 2)[0], n_parts) if mlp
                      else (look("set_transformer/linear/w", 2)[0], 0))
    pixels = template_height * template_width * channels
    kernels = kernels[:1] if len(set(kernels)) == 1 else kernels
    known = {"output_channels": tuple(widths), "kernel_shapes": tuple(kernels), "n_channels": channels,
             "n_part_caps": n_parts, "template_size": (template_height, template_width),
             "colorize_templates": colour, "use_alpha_channel": f"{decoder}/templates_alpha" in look,
             "learn_output_scale": f"{decoder}/scale" in look, "n_part_caps_dims": 6, "n_caps_dims": 2,
             "residual_blocks": n_blocks // n_layers}
    head = "capsule_image_encoder"
    if f"{head}/linear/w" in look:
        before, outputs = look(f"{head}/linear/w", 2)
        grid = math.isqrt(before // widths[-1])
        if grid * grid * widths[-1] != before:
            raise InferenceError(f"{head}/linear/w takes {before} inputs, no square grid of {widths[-1]}")
        types = {"linear": 7}
    else:
        grid, width, _ = look(f"{head}/add/b", 3)
        if grid != width:
            raise InferenceError(f"{head}/add/b: a grid of {grid}×{width} is not square")
        outputs = look(f"{head}/conv_2d/w", 4)[3]
        types = {"conv_att": 8, "conv": 7}  # pose, presence, and a map of attention
    for kind, numbers in types.items():
        features, rest = divmod(outputs, n_parts)
        features -= numbers
        for fed in (True, False)[mlp:]:
            if (not rest and not beyond and tokens == 7 + features + pixels * fed
                    and (not colour or look(f"{decoder}/mlp/linear_0/w", 2)[0] == features)):
                return known | ({} if mlp else {"feed_templates": fed}) | {
                    "grid": grid, "encoder_type": kind, "n_part_special_features": features}
    encoder = f"{MLP_ENCODER}/linear_0/w" if mlp else "set_transformer/linear/w"
    raise InferenceError(f"{head} gives {outputs} numbers for {n_parts} parts and {encoder} "
                         f"takes {tokens} of each: no head and number of special features fit both")


def _set_transformer(look: _Look) -> dict[str, Any]:
    """Layers, heads and widths of the object encoder."""
    scope = "set_transformer"
    dims, outputs = look(f"{scope}/linear/w", 2)[1], look(f"{scope}/linear_1/w", 2)[1]
    known = {"n_dims": dims, "n_output_dims": outputs,
             "n_obj_caps": look(f"{scope}/inducing_points", 3)[1], "n_inducing_points": 0}
    attention = "multi_head_qkv_attention/linear"
    linears = look.count(f"{scope}/{attention}", "/w")
    if linears % 3 != 1:
        raise InferenceError(f"{scope}/{attention}: {linears} layers, expected three for each head and one")
    known["n_heads"] = linears // 3
    for kind in ("self_attention", "induced_self_attention"):
        layers = look.count(f"{scope}/{kind}", "/mlp/linear_0/w")
        if layers:
            known |= {"n_layers": layers, "layer_norm": f"{scope}/{kind}/layer_norm/gamma" in look}
            if kind.startswith("induced"):
                known["n_inducing_points"] = look(f"{scope}/{kind}/inducing_points", 3)[1]
    if "n_layers" not in known:
        raise InferenceError(f"the variable {scope}/self_attention/mlp/linear_0/w is missing")
    return known


def _hiddens(look: _Look, scope: str) -> tuple[int | tuple[int, ...], int]:
    """Hidden widths and output of a per-capsule MLP."""
    sizes = [look(f"{scope}/batch_linear{f'_{i}' if i else ''}/weights", 4)[3]
             for i in range(look.count(f"{scope}/batch_linear", "/weights"))]
    if len(sizes) < 2:
        raise InferenceError(f"the variable {scope}/batch_linear{'_1' * len(sizes)}/weights is missing")
    return sizes[0] if len(sizes) == 2 else tuple(sizes[:-1]), sizes[-1]


def _mlp_encoder(look: _Look) -> dict[str, Any]:
    """Layers and widths of an object encoder that is an MLP."""
    n_layers = look.count(f"{MLP_ENCODER}/linear", "/w", "_0") - 1
    _, n_caps, n_features, _ = look(f"{CAPSULE_LAYER}/batch_mlp/batch_linear/weights", 4)
    known = {"object_encoder": "mlp", "n_layers": n_layers, "n_obj_caps": n_caps,
             "n_output_dims": n_features, "n_inducing_points": 0, "dropout_rate": 0.0}
    return known | ({"n_dims": look(f"{MLP_ENCODER}/linear_0/w", 2)[1]} if n_layers else {})


def _objects(look: _Look) -> dict[str, Any]:
    mlp = f"{MLP_ENCODER}/linear_0/w" in look
    known = _mlp_encoder(look) if mlp else _set_transformer(look) | {"object_encoder": "set_transformer"}
    hiddens, params = _hiddens(look, f"{CAPSULE_LAYER}/batch_mlp")
    return known | {"n_hiddens": hiddens, "n_obj_caps_params": params}


def _probes(look: _Look) -> dict[str, Any]:
    probe = "image_autoencoder/classification_probe/linear/w"
    return {"probe": True, "n_classes": look(probe, 2)[1]} if probe in look else {"probe": False}


def _constellation(look: _Look) -> dict[str, Any]:
    known = _set_transformer(look) | {"n_caps_dims": 2}
    scope = "constellation_capsule/capsule_layer"
    if f"{scope}/cpr_static" in look:
        hiddens, params = _hiddens(look, f"{scope}/batch_mlp")
        known |= {"klass": "ConstellationCapsule", "n_votes": look(f"{scope}/cpr_static", 4)[2],
                  "n_hiddens": hiddens, "n_obj_caps_params": params}
    else:
        hiddens, outputs = _hiddens(look, "constellation_decoder/batch_mlp")
        if isinstance(hiddens, tuple) and len(hiddens) == 2 and hiddens[0] == hiddens[1]:
            hiddens = hiddens[0]  # one size stands for two layers
        elif isinstance(hiddens, int):
            hiddens = (hiddens,)
        # For each vote two coordinates, a presence and a scale, and the capsule's presence.
        known |= {"klass": "ConstellationDecoder", "n_votes": (outputs - 1) // 4, "n_hiddens": hiddens}
    student = any(name.endswith("/order_invariant_capsule_likelihood/df") for name in look.shapes)
    return known | {"pdf": "student" if student else "normal"}


def _some(names: Collection[str]) -> str:
    names = [printable(name) for name in sorted(names)]
    return f"{len(names)} variables ({', '.join([*names[:3], '…'][:len(names)])})"


def either(values: Sequence[Any]) -> str:
    """`39, 40 or 41`."""
    words = [shown(value) for value in values]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def shown(value: Any) -> str:
    """A value as a user writes it."""
    return "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
