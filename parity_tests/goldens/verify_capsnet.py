"""Every recording of the CapsNet programs, one at a time, on one side: values, gradients, five Adam steps.

Used by test_goldens_capsnet.py on the recordings that are known, and by `scae verify --golden` on any
folder of such.
"""

from __future__ import annotations

import numpy as np

from parity_tests.goldens import capsnet
from parity_tests.goldens.routing import RoutingRecord, held
from parity_tests.harness.sides import Arrays, Lib, Outcome, load_port, place, run

STEPS = 5


def verify(record: RoutingRecord, side: str) -> None:
    """All of a record on one side; float32 recordings are compared with ours in either dtype.

    Raises:
        ParityError: an array differs by more than its bound.
        KeyError: no recipe for this record.
    """
    largest = verify_record(record, side, "float64", {})
    if record.dtype == "float32":
        verify_record(record, side, "float32", largest)
    if "losses_over_steps" in record.group().outputs:
        verify_steps(record, side)


def named(record: RoutingRecord) -> str:
    """pytest's name of the test of one record."""
    return f"parity_tests/tests/goldens/test_goldens_capsnet.py::test_record[{record.name}]"


def verify_record(record: RoutingRecord, side: str, dtype: str, largest: dict[str, float]
                  ) -> dict[str, float]:
    """All groups of a record on one side.

    Of a full-size gradient the recording keeps norm, sum and 64 samples. In float64 the samples are held
    to the rule by their own largest value, in float32 by that of the whole gradient, as the rule says:
    rounding is relative to it, and the samples may all be small (a seventh of it in the worst case here).
    The sum likewise: it cancels, and rounding is relative to the sum of the absolute values.

    Args:
        record: what is compared.
        side: `reference` or `port`.
        dtype: of our run.
        largest: scales of sampled and summed gradients, from the float64 run; {} for that run itself.

    Returns:
        These scales, by the key of what is recorded.

    Raises:
        ParityError: an array differs by more than its bound.
        AssertionError: a recorded array that nothing here compares.
    """
    found = {}
    groups = {name: capsnet.run_of(record, name) for name in record.groups}
    for name, planned in groups.items():
        recorded, prefix = record.group(name), f"{name}/" if name else ""
        outcome = run(side, planned.recipe, planned.inputs, planned.attributes, dtype,
                      planned.cotangents, planned.variables)
        seen = set()
        for key, (ours, back) in planned.outputs.items():
            held(record, f"out/{prefix}{key}", f"{side} {dtype}", back(outcome.outputs[ours]),
                 recorded.outputs[key], named(record))
            seen.add(key)
        for key, expected in recorded.gradients.items():
            variable, _, kind = key.rpartition("/")
            if kind in ("norm", "sum", "sample"):
                gradient = outcome.gradients[f"vargrad/{variable}"]
                actual = capsnet.fingerprint(gradient)[kind]
                size = np.abs(np.asarray(gradient, np.float64))
                if kind != "norm":
                    found[key] = float(size.max() if kind == "sample" else size.sum())
            else:
                ours, back = planned.gradients[key]
                actual = back(outcome.gradients[ours])
            held(record, f"grad/{prefix}{key}", f"{side} {dtype}", actual, expected, named(record),
                 largest.get(key))
        seen |= further(record, name, side, dtype, outcome, planned)
        assert set(recorded.outputs) <= seen, f"not compared: {sorted(set(recorded.outputs) - seen)}"
    return found


def further(record: RoutingRecord, group: str, side: str, dtype: str, outcome: Outcome,
            planned: capsnet.Run) -> set[str]:
    """Outputs that are not simply one of ours: routing's steps, and what a network's steps compare."""
    recorded, label = record.group(group), f"{side} {dtype}"
    if "n_parameters" in recorded.outputs:
        count = sum(np.size(gradient) for name, gradient in outcome.gradients.items()
                    if name.startswith("vargrad/"))
        held(record, "out/n_parameters", label, np.asarray(count), recorded.outputs["n_parameters"],
             named(record))
    if "logits_after" not in recorded.outputs:
        return {"losses_over_steps", "n_parameters"}
    iteration = int(group[1:])
    # Ours are those that the last iteration uses, recorded those that the next one would.
    after = run(side, planned.recipe, planned.inputs, planned.attributes | {"iterations": iteration + 1},
                dtype)
    for theirs, ours in (("logits_after", "logits"), ("route_next", "coupling")):
        held(record, f"out/{group}/{theirs}", label, after.outputs[ours], recorded.outputs[theirs],
             named(record))
    for later in record.groups[iteration - 1:]:
        held(record, f"out/{later}/v_all", label, outcome.outputs["capsules"],
             record.group(later).outputs["v_all"][iteration - 1], named(record))
    return {"logits_after", "route_next", "v_all"}


def verify_steps(record: RoutingRecord, side: str) -> None:
    """Losses before and after five Adam steps on one batch, and the variables after the first and last."""
    train = train_reference if side == "reference" else train_port
    losses, variables = train(record)
    held(record, "out/losses_over_steps", f"{side} {record.dtype}", losses,
         record.group().outputs["losses_over_steps"], named(record))
    for step in (1, STEPS):
        for name, expected in record.after(step).items():
            held(record, f"out/after_step{step}/{name}", f"{side} {record.dtype}", variables[step][name],
                 expected, named(record))


def train_port(record: RoutingRecord) -> tuple[np.ndarray, dict[int, Arrays]]:
    """Losses, and variables by number of steps, of the port."""
    import torch
    lib, planned = Lib("port", record.dtype), capsnet.run_of(record, "")
    model = planned.recipe.build(lib, planned.attributes)
    load_port(lib, model, planned.recipe, planned.variables, planned.attributes)
    images = torch.tensor(record.inputs["images"].astype(record.dtype), device=place())
    label = torch.tensor(record.inputs["label"], device=place())
    optimizer = lib.core.adam.Adam(model.parameters(), lr=0.0)
    losses, variables = [], {}
    for step in range(STEPS + 1):
        found = lib.checkpoints.convert.module_arrays(model, table=planned.recipe.mapping(
            planned.attributes))
        variables[step] = {name: lib.checkpoints.convert.to_original(p.detach().cpu().numpy().copy(), transform)
                           for name, (p, transform) in found.items()}
        optimizer.param_groups[0]["lr"] = lib.core.adam.exponential_decay(step)
        optimizer.zero_grad()
        loss = model(images, label).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return np.asarray(losses), variables


def train_reference(record: RoutingRecord) -> tuple[np.ndarray, dict[int, Arrays]]:
    """Losses, and variables by number of steps, of the reference."""
    import tensorflow as tf
    lib, planned = Lib("reference", record.dtype), capsnet.run_of(record, "")
    model = planned.recipe.build(lib, planned.attributes)
    model.load_variables(planned.variables)
    trained = model.variables_by_name
    optimizer = lib.core.adam.Adam(trained, lr=0.0)
    losses, variables = [], {}
    for step in range(STEPS + 1):
        variables[step] = {name: variable.numpy() for name, variable in trained.items()}
        optimizer.lr = lib.core.adam.exponential_decay(step)
        with tf.GradientTape() as tape:
            loss = model(tf.constant(planned.inputs["image"].astype(record.dtype)),
                         tf.constant(planned.inputs["label"])).loss
        losses.append(float(loss))
        optimizer.step(dict(zip(trained, tape.gradient(loss, list(trained.values())))))
    return np.asarray(losses), variables
