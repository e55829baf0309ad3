"""The sections of a configuration: frozen dataclasses with the original's argument names.

`port.config` reads them from flags, arguments and manifests, and re-exports them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.configuration import limits
from port.configuration.fields import LIMITS, ConfigError, Section, as_json, unknown
from port.configuration.limits import limited
from port.core.quirks import MODEL_REPAIRS


@dataclass(frozen=True)
class CNN(Section):
    """The part encoder's convolutions; a single kernel or stride serves all layers.

    Attributes:
        output_channels: channels of each convolution; their number is the number of layers.
        kernel_shapes: side of the square kernels in pixels.
        strides: of each layer.
        paddings: the original knows no other than `VALID`, which adds nothing at the border.
        activate_final: apply ReLU after the last convolution too.
        residual_blocks: how many blocks of two 3x3 convolutions follow every convolution (ours; the original
            has none).
    """

    output_channels: tuple[int, ...] = limited((128, 128, 128, 128), at_least=1)
    kernel_shapes: tuple[int, ...] = limited((3,), at_least=1)
    strides: tuple[int, ...] = limited((2, 2, 1, 1), at_least=1)
    paddings: str = "VALID"
    activate_final: bool = True
    residual_blocks: int = limited(0, at_least=0)

    def output_side(self, canvas: int) -> int:
        """Side of the embedding grid for a square canvas; 0 or less when the canvas is too small."""
        n_layers = len(self.output_channels)
        if not n_layers:
            raise ConfigError("cnn.output_channels: give at least one layer")
        kernels = self.kernel_shapes * (n_layers if len(self.kernel_shapes) == 1 else 1)
        strides = self.strides * (n_layers if len(self.strides) == 1 else 1)
        for name, given in (("kernel_shapes", kernels), ("strides", strides)):
            if len(given) != n_layers:
                raise ConfigError(f"cnn.{name}: one for all or one for each of {n_layers} layers "
                                  f"(output_channels), {len(getattr(self, name))} given")
        for kernel, stride in zip(kernels, strides, strict=True):
            canvas = (canvas - kernel) // stride + 1
        return canvas


@dataclass(frozen=True)
class PartEncoder(Section):
    """Part capsules, one for each template.

    Attributes:
        n_caps: number of part capsules K.
        n_caps_dims: numbers of a pose; only 6, an affine transform, is a pose.
        n_features: special features of a part, from which its colour is made.
        noise_scale: width of the uniform noise on the presence logits; 0 draws none.
        similarity_transform: poses turn, scale and move alone; the second scale and the shear are not used.
        encoder_type: what reads the convolutions: attention pooling for each capsule (`conv_att`), their mean
            over the positions (`conv`), or one linear layer (`linear`).
    """

    n_caps: int = limited(16, at_least=1)
    n_caps_dims: int = limited(6, at_least=1)
    n_features: int = limited(16, at_least=0)
    noise_scale: float = limited(4.0, at_least=0)
    similarity_transform: bool = False
    encoder_type: str = "conv_att"


@dataclass(frozen=True)
class PartDecoder(Section):
    """Templates and the pixel mixture.

    Attributes:
        template_size: rows and columns of a template; one number makes it square.
        n_channels: colours of a template; the same as `channels` of the images.
        learn_output_scale: learn the standard deviation of the pixels, one for all, in place of 1.
        colorize_templates: multiply each template with a colour made of the part's special features.
        template_nonlin: what limits template values to [0, 1].
        color_nonlin: what limits colours to [0, 1].
        use_alpha_channel: give each template its own mixing logit for each pixel; without it the template's
            values divided by a learned temperature are the logits.
        inverse_space_transform: a pose maps the template to the canvas; false turns it round (the ML@B port's
            option).
    """

    template_size: tuple[int, ...] = limited((11, 11), at_least=1)
    n_channels: int = limited(1, at_least=1)
    learn_output_scale: bool = False
    colorize_templates: bool = False
    template_nonlin: str = "relu1"
    color_nonlin: str = "relu1"
    use_alpha_channel: bool = False
    inverse_space_transform: bool = True


@dataclass(frozen=True)
class ObjEncoder(Section):
    """The set transformer, which turns the set of parts into features of each object capsule.

    Attributes:
        n_layers: blocks of self-attention.
        n_heads: of attention.
        n_dims: width of the tokens inside.
        n_output_dims: features handed to each object capsule.
        n_outputs: object capsules; the same as `obj_decoder.n_caps`.
        layer_norm: normalise after attention and after the feed-forward layers.
        dropout_rate: share of the residual input that is dropped in training (Q21).
        n_inducing_points: learned points that stand between the parts (Q22); 0 is full attention.
    """

    n_layers: int = limited(3, at_least=0)
    n_heads: int = limited(1, at_least=1)
    n_dims: int = limited(16, at_least=1)
    n_output_dims: int = limited(256, at_least=1)
    n_outputs: int = limited(10, at_least=1)
    layer_norm: bool = True
    dropout_rate: float = limited(0.0, at_least=0, below=1)
    n_inducing_points: int = limited(0, at_least=0)


@dataclass(frozen=True)
class ObjDecoder(Section):
    """Object capsules, each of which votes for the pose of every part.

    Attributes:
        n_caps: number of object capsules O.
        n_caps_dims: an object capsule lives in the plane, so only 2.
        n_votes: votes of a capsule, one for each part; the same as `part_encoder.n_caps`.
        n_caps_params: parameters of a capsule between its two MLPs; with null the features are the
            parameters (Q39).
        n_hiddens: hidden width of both MLPs, or a list of widths.
        learn_vote_scale: learn the standard deviation of each vote, in place of 1.
        deformations: let the parameters change the relation of object and part; false keeps it static.
        noise_type: distribution of the noise on the presence logits; null draws none.
        noise_scale: factor on that noise.
        similarity_transform: transforms turn, scale and move alone.
        caps_dropout_rate: share of object capsules that is dropped, in evaluation too.
    """

    n_caps: int = limited(10, at_least=1)
    n_caps_dims: int = limited(2, at_least=1)
    n_votes: int = limited(16, at_least=1)
    n_caps_params: int | None = limited(32, at_least=1)
    n_hiddens: int | tuple[int, ...] = limited(128, at_least=1)
    learn_vote_scale: bool = True
    deformations: bool = True
    noise_type: str | None = "uniform"
    noise_scale: float = limited(4.0, at_least=0)
    similarity_transform: bool = False
    caps_dropout_rate: float = limited(0.0, at_least=0, below=1)


@dataclass(frozen=True)
class Autoencoder(Section):
    """Loss weights, gradient stops, what feeds the loss decoder and what it has to reconstruct.

    Attributes:
        n_classes: classes that the probes tell apart; also sets the target of the prior sparsity.
        dynamic_l2_weight: of the squared deformations.
        caps_ll_weight: of the log-likelihood of the parts under the objects' votes.
        vote_type: poses that the loss decoder draws: the encoder's (`enc`), or the winning votes, weighted by
            posterior (`soft`) or the most probable one (`hard`).
        pres_type: presences that go with them, in the same words.
        stop_grad_caps_inpt: no gradient from the object capsules to the parts they are given.
        stop_grad_caps_target: no gradient from their likelihood to the parts they explain.
        prior_sparsity_loss_type: form of the sparsity losses on the objects' presence.
        prior_within_example_sparsity_weight: how strongly each image is to use few objects.
        prior_between_example_sparsity_weight: how strongly each object is to serve its share of the images.
        prior_within_example_constant: presence that an image is to use; 0 is objects ÷ classes (Q09).
        posterior_sparsity_loss_type: form of the sparsity losses on the share of parts an object explains.
        posterior_within_example_sparsity_weight: as for the prior, on the posterior.
        posterior_between_example_sparsity_weight: as for the prior, on the posterior.
        primary_caps_sparsity_weight: of the sum of the parts' presences.
        weight_decay: of ½ Σ w² over the variables that the original decays (Q15).
        feed_templates: show the templates to the set transformer.
        probe: train linear read-outs of the classes along; no gradient goes from them to the capsules.
        target: what is reconstructed: the image, or its edges (`sobel`).
        object_encoder: the set transformer or, in its place, an MLP of `n_layers` hidden layers of `n_dims`
            over poses, presences and features of all parts.
        rec_ll_weight: of the pixels' log-likelihood; the original has 1 (ours, as in the ML@B port).
        template_l1_weight: of the mean of relu(templates) (ours).
        mse_weight: of the mean picture's squared error (ours).
    """

    n_classes: int = limited(10, at_least=1)
    dynamic_l2_weight: float = limited(10.0, at_least=0)
    caps_ll_weight: float = limited(1.0, at_least=0)
    vote_type: str = "enc"
    pres_type: str = "enc"
    stop_grad_caps_inpt: bool = True
    stop_grad_caps_target: bool = True
    prior_sparsity_loss_type: str = "l2"
    prior_within_example_sparsity_weight: float = limited(1.0, at_least=0)
    prior_between_example_sparsity_weight: float = limited(1.0, at_least=0)
    prior_within_example_constant: float = limited(0.0, at_least=0)
    posterior_sparsity_loss_type: str = "entropy"
    posterior_within_example_sparsity_weight: float = limited(10.0, at_least=0)
    posterior_between_example_sparsity_weight: float = limited(10.0, at_least=0)
    primary_caps_sparsity_weight: float = limited(0.0, at_least=0)
    weight_decay: float = limited(0.0, at_least=0)
    feed_templates: bool = True
    probe: bool = True
    target: str = "image"
    object_encoder: str = "set_transformer"
    rec_ll_weight: float = limited(1.0, at_least=0)
    template_l1_weight: float = limited(0.0, at_least=0)
    mse_weight: float = limited(0.0, at_least=0)


# What the original does not have is said only where it is used: its recordings and the identity of a
# run know nothing of it.
OURS = {"cnn": ("residual_blocks",), "part_decoder": ("inverse_space_transform",),
        "autoencoder": ("rec_ll_weight", "template_l1_weight", "mse_weight")}
SECTIONS = {"cnn": CNN, "part_encoder": PartEncoder, "part_decoder": PartDecoder,
            "obj_encoder": ObjEncoder, "obj_decoder": ObjDecoder, "autoencoder": Autoencoder}


class Written:
    """How a configuration with part capsules is written down."""

    def to_arguments(self) -> dict[str, Any]:
        """Nested plain dictionary in the original's argument names, as `reference` takes it."""
        arguments = plain(self)
        arguments["part_decoder"]["output_size"] = [self.canvas, self.canvas]
        return arguments

    def to_json(self) -> str:
        """The configuration as JSON, unset settings as "unset"; `from_arguments` reads it back."""
        return to_json(self)


@dataclass(frozen=True)
class Config(Written):
    """The image model: its canvas, six sections and the repairs chosen.

    Two configurations that compute the same are equal.

    Attributes:
        canvas: side of the square image in pixels.
        channels: colours of the image.
        repairs: ids of the original's quirks that are repaired, as Q01.
        unset: settings (as `section.name`) of a converted checkpoint that neither it nor its converter told;
            they hold the default.
    """

    kind: ClassVar[str] = "scae"
    canvas: int = limited(28, at_least=1, at_most=4096)
    channels: int = limited(1, at_least=1, at_most=64)
    cnn: CNN = field(default_factory=CNN)
    part_encoder: PartEncoder = field(default_factory=PartEncoder)
    part_decoder: PartDecoder = field(default_factory=PartDecoder)
    obj_encoder: ObjEncoder = field(default_factory=ObjEncoder)
    obj_decoder: ObjDecoder = field(default_factory=ObjDecoder)
    autoencoder: Autoencoder = field(default_factory=Autoencoder)
    repairs: tuple[str, ...] = ()
    unset: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        limits.check(self, ConfigError)
        for repair in self.repairs:
            if repair not in MODEL_REPAIRS:
                raise ConfigError(unknown("repair", repair, MODEL_REPAIRS))
        for name, left, right in (
                ("obj_decoder.n_votes and part_encoder.n_caps", self.obj_decoder.n_votes,
                 self.part_encoder.n_caps),
                ("obj_encoder.n_outputs and obj_decoder.n_caps", self.obj_encoder.n_outputs,
                 self.obj_decoder.n_caps)):
            if left != right:
                raise ConfigError(f"{name} must agree: {left} and {right} given")
        if self.part_encoder.n_caps_dims != 6 or self.obj_decoder.n_caps_dims != 2:
            raise ConfigError("a part pose has 6 numbers and an object capsule 2 dimensions: "
                              f"n_caps_dims {self.part_encoder.n_caps_dims} and "
                              f"{self.obj_decoder.n_caps_dims} given")
        if self.autoencoder.object_encoder == "mlp" and (
                self.obj_encoder.dropout_rate or self.obj_encoder.n_inducing_points):
            raise ConfigError("object_encoder mlp has no attention: set dropout_rate and "
                              "n_inducing_points to 0")
        check_canvas(self)

    @property
    def feeds_templates(self) -> bool:
        """Whether the object encoder sees templates; an MLP gets none, as the original would call it."""
        return self.autoencoder.feed_templates and self.autoencoder.object_encoder == "set_transformer"


# By bare name: a setting of a name has one range in every section, which a test sees to.
LIMITS.update({name: range_ for kind in (*SECTIONS.values(), Config) for name, range_ in limits.of(kind).items()})


def plain(config: Any, whole: bool = False) -> dict[str, Any]:
    """Nested plain arguments of an image model; what the original does not have only where used.

    Args:
        config: any configuration with parts.
        whole: say everything.
    """
    arguments = json.loads(json.dumps(dataclasses.asdict(config)))
    del arguments["unset"]
    for section, added in OURS.items():
        if whole or (config.kind == "pcae" and section == "autoencoder"):
            continue
        for name in added:
            if arguments[section][name] == SECTIONS[section].__dataclass_fields__[name].default:
                del arguments[section][name]
    return arguments if config.kind == Config.kind else {"model": config.kind} | arguments


def to_json(config: Any, whole: bool = False) -> str:
    """An image model's configuration as JSON, unset settings as "unset"; `whole` as for `plain`."""
    return as_json(plain(config, whole), config.unset)


def check_canvas(config: Any) -> None:
    """Refuse convolutions that leave nothing of the canvas, and colours without features.

    Raises:
        ConfigError: the message names the settings.
    """
    if config.part_decoder.n_channels != config.channels:
        raise ConfigError("part_decoder.n_channels and channels must agree: "
                          f"{config.part_decoder.n_channels} and {config.channels} given")
    if config.part_decoder.colorize_templates and not config.part_encoder.n_features:
        raise ConfigError("colorize_templates takes the colour from the special features: set "
                          "n_part_special_features above 0 or colorize_templates to false")
    if len(config.part_decoder.template_size) != 2:
        raise ConfigError("part_decoder.template_size: rows and columns, "
                          f"{len(config.part_decoder.template_size)} numbers given")
    if config.cnn.output_side(config.canvas) < 1:
        raise ConfigError(f"canvas_size {config.canvas} is too small for the convolutions "
                          f"(strides {config.cnn.strides})")
