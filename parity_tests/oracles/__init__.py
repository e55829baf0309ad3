"""Plain-loop NumPy float64 oracles: the formulas of the original, written a third time.

What no recording covers is tested against these functions, and the recordings prove the functions
(`parity_tests/tests/ops/test_oracles_goldens.py`). They are slow on purpose: one Python loop per index of the
formula, no broadcasting tricks, no TensorFlow, no torch, and nothing taken from `reference` or
`port`, so that the two cannot be wrong together with them.

Folders, files and function names are those of `reference`; layouts are channels last. A module becomes a
function `name(inputs..., variables, ...)`, where `variables` maps the original's variable names,
relative to the module's scope, to arrays; classes give their names in snake case
(`SelfAttention` -> `core.attention.self_attention`).
"""

from parity_tests.oracles import capsnet, checkpoint, constellation, core, em, scae, scalars, settings
from parity_tests.oracles.scalars import sub_scope

__all__ = ["capsnet", "checkpoint", "constellation", "core", "em", "scae", "scalars", "settings", "sub_scope"]
