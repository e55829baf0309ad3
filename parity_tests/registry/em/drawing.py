"""What the rows of `em/` share."""

from __future__ import annotations

from typing import Any

from parity_tests.harness.strategies import Case, Maker

POSE = 16
# Variances near the floor 1e-9 magnify the rounding of the mean by 1e9 in the gradient; the recordings
# cover that floor, the drawn ones are larger.
FLOORS = [5e-4, 1e-2, 0.3]


def draw_routing(m: Maker, iterations: int | None = None, **fixed: Any) -> dict[str, Any]:
    """Arguments of `Routing`, every setting drawn."""
    drawn = {"iterations": m.size(1, 3) if iterations is None else iterations,
             "final_lambda": m.choice([0.01, 0.02, 0.1]),
             "schedule": m.choice(["geometric", "linear", "constant"]),
             "competition": m.choice(["parents", "parents", "filled", "stride_1_per_type"]),
             "initial": m.choice(["parents", "parents", "types"]),
             "initial_epsilon": m.choice([0.0, 1e-9, 0.1]), "mass_epsilon": m.choice([0.0, 1e-9, 0.02]),
             "mass_epsilon_in_cost": m.flag(), "variance_floor": m.choice(FLOORS),
             "momentum": m.choice([0.0, 0.1]), "log_epsilon": m.choice([0.0, 1e-9, 0.01]),
             "cost_scale": m.choice(["none", "children"]), "betas": m.choice(["paper", "official"])}
    return drawn | fixed


def draw_sizes(m: Maker) -> tuple[int, ...]:
    """B, P, Q, K, L, I, J: windows of at least two children, so that a variance is one."""
    batch, rows, columns = m.size(1, 2), m.size(1, 3), m.size(1, 3)
    high, wide = m.size(1, 3), m.size(1, 3)
    types_in = m.size(2 if high * wide == 1 else 1, 3)
    return batch, rows, columns, high, wide, types_in, m.size(1, 4)


def make_settings(lib: Any, routing: dict[str, Any]) -> Any:
    return lib.em.settings.Routing(**routing)


def draw_grid(m: Maker) -> Case:
    kernel, stride = (m.size(1, 3), m.size(1, 3)), m.size(1, 3)
    height, width = kernel[0] + m.size(0, 4), kernel[1] + m.size(0, 4)
    return m.case({"kernel": kernel, "stride": stride},
                  children=m.normal(m.size(1, 2), height, width, *m.shape(1, 2)))


def draw_counts(m: Maker) -> Case:
    return m.case({"parents": (m.size(1, 4), m.size(1, 4)), "kernel": (m.size(1, 4), m.size(1, 4)),
                   "stride": m.size(1, 3)})


ROUTED = ("pose", "activation", "logit", "assignment")
