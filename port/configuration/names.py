"""The valid name that was meant by a wrong one: the same thing elsewhere, else the nearest spelling."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What other programs call a setting → what it may be called here; the first that is allowed is offered.
_SAID: dict[str, str] = {
    "lr": "learning_rate learn_rate learningrate eta step_size base_lr initial_lr",
    "steps": "n_steps num_steps max_steps train_steps training_steps iterations n_iterations iters",
    "epochs": "n_epochs num_epochs max_epochs epoch n_epoch",
    "batch_size": "batch bs minibatch mini_batch batchsize train_batch_size per_device_batch_size",
    "optimizer": "optim optimiser solver opt update_rule",
    "weight_decay": "wd l2 l2_reg l2_regularization regularization",
    "data_workers": "workers num_workers n_workers loader_workers",
    "threads": "num_threads n_threads cpus cores n_jobs",
    "device": "gpu cuda gpus accelerator use_cuda",
    "canvas_size canvas": "image_size img_size size resolution input_size input_shape image_shape side",
    "n_channels channels image_channels": "input_channels in_channels num_channels colors colours",
    "n_classes classes": "num_classes n_labels num_labels number_of_classes nb_classes output_classes",
    "n_part_caps primary_types": "n_parts num_parts part_capsules n_part_capsules primary_caps",
    "n_obj_caps classes": "n_objects num_objects object_capsules n_object_capsules n_capsules num_capsules",
    "iterations": "routing_iterations num_routing n_routing routings num_iterations routing_iters",
    "grad_norm_clip": "clip clip_norm clip_grad gradient_clip max_grad_norm grad_clip clip_grad_norm",
    "grad_value_clip": "clip_value clipvalue clip_grad_value",
    "amp": "mixed_precision fp16 bf16 half precision use_amp float16",
    "compile": "jit torch_compile compiled",
    "data_root": "data_dir data_path datadir root dataset_dir path",
    "source": "dataset data data_name dataset_name",
    "lr_schedule": "scheduler lr_scheduler schedule lr_policy",
    "lr_decay": "gamma decay_rate lr_gamma decay",
    "lr_decay_steps": "decay_steps step_size_up lr_step",
    "held_out_every": "val_every eval_every validate_every eval_interval val_interval",
    "held_out_images": "eval_images n_eval",
    "validation_images": "val_images n_val val_size validation_size val_split validation_split",
    "checkpoint_every": "save_every save_interval save_steps checkpoint_interval",
    "log_every": "log_interval log_frequency print_every log_steps logging_steps",
    "dropout_rate": "dropout drop_rate p_dropout",
    "level": "confidence confidence_level ci alpha significance",
    "bootstrap_draws": "n_bootstrap bootstrap bootstrap_samples n_draws n_resamples",
    "deterministic": "reproducible cudnn_deterministic",
    "template_size": "templates part_size template_shape",
    "seed": "random_seed random_state rng_seed manual_seed",
}
MEANT: dict[str, tuple[str, ...]] = {}
for _ours, _theirs in _SAID.items():
    for _name in _theirs.split():
        MEANT[_name] = (*MEANT.get(_name, ()), *_ours.split())


def meant(name: object, allowed: Iterable[object], cutoff: float = 0.0) -> str | None:
    """The allowed name that `name` stands for: by meaning, else by spelling.

    Args:
        name: what was given; `train.learning_rate` and `learning-rate` count as learning_rate.
        allowed: what there is.
        cutoff: how near a spelling must be, from 0 for the nearest of all to 1.

    Returns:
        One of `allowed` as text, or None.
    """
    known = [str(one) for one in allowed]
    word = str(name).rpartition(".")[2].strip().lower().replace("-", "_")
    for ours in (word, *MEANT.get(word, ())):
        if ours in known:
            return ours
    near = difflib.get_close_matches(str(name), known, 1, cutoff)
    return near[0] if near else None
