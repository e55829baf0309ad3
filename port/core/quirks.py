"""The registry of what the original does unexpectedly: reproduced by default, repaired by request.

A repair is switched on by its id: `Config(repairs=("Q01",))` for what changes the model, the
protocol's or the training's own setting for the rest (column `where`).
"""

from __future__ import annotations

from typing import NamedTuple


class Quirk(NamedTuple):
    """One surprise: what the original does, its effect, and what the repair does (None: none)."""

    id: str
    file: str
    faithful: str
    effect: str
    repaired: str | None = None
    where: str | None = None


_MODEL = "Config.repairs"
_CONSTELLATION = "ConstellationConfig.repairs"

QUIRKS: dict[str, Quirk] = {quirk.id: quirk for quirk in (
    Quirk("Q01", "core/attention.py", "absent keys are masked by subtracting (1 - presence)·1e32",
          "presences are soft, so attention is one-hot on the most present part and queries, keys "
          "and inducing points get no gradient", "softmax(QKᵀ/√d + log presence)", _MODEL),
    Quirk("Q02", "scae/part_encoder.py", "pooled features [B, D, K] are reshaped, not transposed, to "
          "[B, K, D]", "each capsule mixes the attention maps of many", "transposed: capsule k is "
          "pooled by map k", _MODEL),
    Quirk("Q03", "scae/object_decoder.py", "the likelihood adds unnormalised vote-presence logits",
          "the value is no normalised density and grows with every presence",
          "log-normalised mixing probabilities", _MODEL),
    Quirk("Q04", "scae/model.py", "vote_presence in the result is overwritten by a 0/1 mask",
          "per-capsule reconstructions use binary presences; the soft ones remain in "
          "caps_presence_prob only", "the soft probability", _MODEL),
    Quirk("Q05", "scae/object_decoder.py", "logit and log-density of the dummy component are both ln 0.01",
          "a floor of 1e-4 under every point's likelihood"),
    Quirk("Q06", "evaluation/collected.py", "noise on the presence logits is on in evaluation too",
          "test results vary from draw to draw", "no noise in evaluation", "protocol `clean`"),
    Quirk("Q07", "training/schedule.py", "use_lr_schedule builds a decay and drops it",
          "the learning rate is constant", "the decay is applied", "train.lr_schedule: exponential"),
    Quirk("Q08", "core/preprocess.py", "canvas offset is ceil((padding - shift)/2) of a uniform shift",
          "offset 0 is half as likely as the others, and test images are shifted too",
          "uniform offsets or centred images in training, centred test images",
          "train.shift, evaluate.clean_shift: false"),
    Quirk("Q09", "core/losses.py", "the flag prior_within_example_constant is defined nowhere and dropped",
          "the target is n_obj_caps / n_classes", "the constant given in the configuration",
          "Config.autoencoder.prior_within_example_constant"),
    Quirk("Q10", "core/rmsprop.py", "epsilon is 1e-2 / batch²", "the step depends on the batch size"),
    Quirk("Q11", "core/rmsprop.py", "TensorFlow's RMSProp: mean square from ones, epsilon inside the root, "
          "learning rate inside the momentum", "first steps are 10 to 10,000 times smaller than "
          "with the textbook rule"),
    Quirk("Q12", "scae/part_decoder.py", "0.99 is added to the colour before relu1, and only before relu1",
          "colours start at the edge of saturation"),
    Quirk("Q13", "core/mixture.py", "the mode is the mean of the most probable component",
          "rec_mode and mse are not those of the density's mode"),
    Quirk("Q14", "core/ops.py", "log of less than 1e-16 is -1e8, without gradient",
          "an absent part competes with nothing, and float32 sums lose all else beside it"),
    Quirk("Q15", "core/losses.py", "weight decay takes variables by name (`w`, `weights`)",
          "probes and colour MLP decay; templates, cpr_static and inducing points do not"),
    Quirk("Q16", "core/initializers.py", "truncated normals are not rescaled after the cut",
          "initial weights have 0.88 of the stated deviation"),
    Quirk("Q17", "core/warp.py", "grid constants are float32 in any precision",
          "float64 runs sample at positions off by up to 3e-8 of the canvas"),
    Quirk("Q18", "core/ops.py", "apply_transform adds the translation by plain broadcasting",
          "a batch of transforms on a batch of points gives [B, B, d]"),
    Quirk("Q19", "core/preprocess.py", "normalized_sobel_edges raises a NameError",
          "no configuration can use it", "reproduced from its repaired public copies", "always"),
    Quirk("Q20", "scae/object_decoder.py", "the second capsule MLP has hidden biases but none at the end",
          "4·O biases live in variables of their own"),
    Quirk("Q21", "core/attention.py", "dropout hits the residual input, not the attention's output",
          "the skip connection is what is thinned"),
    Quirk("Q22", "core/attention.py", "induced attention uses one module before and after and ignores "
          "presence", "absent parts are attended to"),
    Quirk("Q23", "core/probe.py", "the masked cross-entropy is divided by the full batch, accuracy "
          "ignores the mask", "few labels mean a small loss"),
    Quirk("Q24", "scae/model.py", "special features enter the object encoder with their gradient",
          "object losses train the part encoder's feature channels; poses, presences and templates "
          "are cut"),
    Quirk("Q25", "scae/recording.py", "per-capsule reconstructions pair votes in order (example, capsule) with "
          "presences and features in order (capsule, example)", "most pictures mix two examples",
          "both in order (example, capsule)", _MODEL),
    Quirk("Q26", "evaluation/clustering.py", "k-means is fitted again on the split it is scored on",
          "test accuracy is that of clusters found on the test set", "fitted on train, applied to "
          "test", "protocol `clean`"),
    Quirk("Q27", "evaluation/collected.py", "incomplete batches are dropped", "9,984 of 10,000 images count",
          "all images", "protocol `clean`"),
    Quirk("Q28", "data/dataset.py", "the training stream is not shuffled", "every epoch has the same batches",
          "shuffled", "train.shuffle"),
    # the constellation autoencoder
    Quirk("Q29", "constellation/data.py", "coordinates are scaled by the extremes of a block of 100 "
          "batches, absent points included", "the unit of length changes from block to block"),
    Quirk("Q30", "constellation/data.py", "the translation is divided by the scale",
          "large patterns lie near the origin"),
    Quirk("Q31", "constellation/decoder.py", "the plain decoder throws its presence logits away and "
          "keeps the noise", "presences are coins; without noise every vote has presence 1/4",
          "the network's logits, noise added", _CONSTELLATION),
    Quirk("Q32", "constellation/decoder.py", "a capsule's presence is the maximum of its votes' 0 or 1 "
          "presences", "the prior sparsity losses are counts without gradient",
          "the maximum of the soft presences", _CONSTELLATION),
    Quirk("Q33", "constellation/decoder.py", "the mixing KL counts points as states, not votes, and is "
          "in no loss", "mixing_kl_weight has no effect", "votes and the dummy are counted, and the "
          "weight is applied", _CONSTELLATION),
    Quirk("Q34", "constellation/likelihood.py", "a capsule that wins a single point is pushed to be absent",
          "lone points are left to the dummy"),
    Quirk("Q35", "constellation/model.py", "the posterior sparsity losses take votes for capsules, and absent "
          "points count", "capsules are spread over their votes", "the mass of present points, summed over "
          "each capsule's votes", _CONSTELLATION),
    Quirk("Q36", "constellation/config.py", "both prior weights take the flag for within",
          "the flag prior_between_example_sparsity_weight has no effect", "its own weight",
          "autoencoder.prior_between_example_sparsity_weight"),
    Quirk("Q37", "constellation/likelihood.py", "soft winners of unordered votes are zeros",
          "no decoder can use them"),
    Quirk("Q38", "scae/object_decoder.py", "Student's t likelihood exists, but no class passes it on",
          "a TypeError", "the density of the votes by name", "ConstellationConfig.obj_decoder.pdf"),
    Quirk("Q39", "scae/object_decoder.py", "a capsule layer without own parameters and one with normal noise "
          "are documented", "an UnboundLocalError and a ValueError", "both run", "always"),
)}

MODEL_REPAIRS = tuple(quirk.id for quirk in QUIRKS.values() if quirk.where == _MODEL)
CONSTELLATION_REPAIRS = ("Q01", *(quirk.id for quirk in QUIRKS.values()
                                  if quirk.where == _CONSTELLATION))
