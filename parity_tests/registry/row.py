"""What a row says about an op: how to call it, what to draw, which cases to add, who answers for it.

Functions are named, never held: they are looked up at call time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker


@dataclass(frozen=True)
class OpCase:
    """One op.

    Attributes:
        op: `folder.module.name`.
        recipe: how to run it on either side.
        draw: builds one example from a maker.
        special: named cases at ties, singularities and non-finite values.
        oracle: whether `parity_tests/oracles/` has a function of this name.
        exact: bit-equal on both sides (NumPy on both, or no arithmetic).
        cells: `(lib, x, a) -> integer tensor` that names the pieces of a piecewise op; where float32
            lands in other pieces than float64, float32 gradients are not compared.
        magnitude: scale of the terms where they are larger than the result, for float32.
        tested_by: the test file of a row that `test_ops.py` does not run itself.
        note: what to know.
        judges: further modules of the port whose mutants it is asked about first.
        initial: whether a module's initial weights are compared too; False where the two sides do not
            draw them from one generator. The variables' names are compared in any case.
    """

    op: str
    recipe: Recipe | None = None
    draw: Callable[[Maker], Case] | None = None
    special: Sequence[tuple[str, Case]] = ()
    oracle: bool = False
    exact: bool = False
    cells: Callable[[Any, dict[str, Any], dict[str, Any]], Any] | None = None
    magnitude: float = 0.0
    tested_by: str = "test_ops.py"
    note: str = ""
    judges: Sequence[str] = ()
    initial: bool = True

    @property
    def room(self) -> str:
        """The room's name."""
        return self.op.rpartition(".")[0]
