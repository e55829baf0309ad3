"""What the suite is told about the pair: rows, recordings, planted bugs.

    pytest --registry=parity_tests/examples/gated_attention/registry.py
"""

from __future__ import annotations

import numpy as np

from parity_tests.given import Pair, Recording
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.mutants.planting import Mutant
from parity_tests.registry import OpCase

PAIR = Pair(reference="gated_tf", port="gated_torch")


def _function(m: Maker) -> Case:
    batch, n, features = m.sizes(3, 2, 6)
    x = {name: m.normal(batch, n, features) for name in ("query", "key", "value", "gate")}
    presence = m.presence(batch, n, exact=False)
    return m.case(terms=n * features, presence=presence, **x)


def _module(m: Maker) -> Case:
    batch, n, features = m.sizes(3, 2, 6)
    return m.case({"features": features}, terms=3 * features, x=m.normal(batch, n, features),
                  presence=m.presence(batch, n, exact=False))


FUNCTION = Recipe(lambda lib, x, a, _: PAIR.of(lib).gated_attention(**x))
MODULE = Recipe(lambda lib, x, a, module: module(**x),
                build=lambda lib, a: PAIR.build(lib, "GatedAttention", "block", a["features"]),
                table=lambda a: PAIR.port_module().MAPPING)
ABSENT = Case({"query": np.ones((1, 2, 3)), "key": np.eye(2, 3)[None],
               "value": np.arange(6.0).reshape(1, 2, 3), "gate": np.zeros((1, 2, 3)),
               "presence": np.array([[1.0, 0.0]])}, seed=2)
ROWS = (
    OpCase("gated.gated_attention", FUNCTION, _function, special=(("absent", ABSENT),)),
    OpCase("gated.GatedAttention", MODULE, _module),
)
RECORDINGS = (Recording("recording.npz", "gated.GatedAttention", {"features": 4}),)
MUTANTS = (
    Mutant("axis", "gated_torch.py", "torch.softmax(logits, -1)", "torch.softmax(logits, -2)",
           "softmax over the queries"),
    Mutant("scale", "gated_torch.py", "query.shape[-1] ** -0.5", "query.shape[-2] ** -0.5",
           "scaled by the number of elements"),
    Mutant("gate", "gated_torch.py", "@ value * torch.sigmoid(gate)", "@ (value * torch.sigmoid(gate))",
           "the gate of the element attended to"),
    Mutant("absent", "gated_torch.py", "clamp(min=1e-30)", "clamp(min=1e-3)",
           "absent elements are seen a little"),
)
