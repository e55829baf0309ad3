"""The checks of the device tier as one list, and how one is run so that its failure costs no other."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from parity_tests.goldens import verify_models
from parity_tests.harness import recorder, sides
from parity_tests.harness.compare import ParityError

KINDS = ("repeat", "models", "fast", "ops", "steps", "capsnet", "em", "rungs")


class Skipped(Exception):
    """A check that has nothing to compare here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        name: `kind/what`; the kind is one of `KINDS`.
        run: does it on a device and gives the worst margin, error over bound; raises `ParityError`
            beyond 1 and `Skipped`.
        short: part of the short form.
    """

    name: str
    run: Callable[[str], float]
    short: bool = True

    @property
    def kind(self) -> str:
        """What it is about."""
        return self.name.split("/", 1)[0]


@dataclass
class Outcome:
    """What became of a check: `pass`, `fail` (beyond its bound), `error` or `skipped`."""

    name: str
    verdict: str
    margin: float | None
    seconds: float
    says: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"check": self.name, "verdict": self.verdict, "margin": self.margin,
                "seconds": round(self.seconds, 3)} | ({"says": self.says} if self.says else {})


def every(short: bool = False) -> list[Check]:
    """All checks in order, those first that say most; `short` leaves out what repeats or takes long."""
    from parity_tests.device import fast, recordings, repeat
    found = [*repeat.checks(), *recordings.checks(), *fast.checks()]
    found.sort(key=lambda check: KINDS.index(check.kind))  # stable: as listed within a kind
    return [check for check in found if check.short] if short else found


@contextlib.contextmanager
def exact_arithmetic() -> Iterator[None]:
    """TF32 off within the block, in products and in convolutions."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def run(check: Check, device: str) -> Outcome:
    """One check on a device; whatever it raises is its outcome."""
    began = time.perf_counter()

    def outcome(verdict: str, margin: float | None = None, says: str = "") -> Outcome:
        return Outcome(check.name, verdict, margin, time.perf_counter() - began, says)
    with recorder.aside(), exact_arithmetic(), verify_models.without_reference(), sides.placed(device):
        try:
            return outcome("pass", float(check.run(device)))
        except Skipped as reason:
            return outcome("skipped", says=str(reason))
        except ParityError as error:
            return outcome("fail", says=" ".join(str(error).split())[:600])
        except Exception as error:  # of a kernel, a driver, a missing package: the next check may work
            where = error.__traceback__
            while where.tb_next is not None:
                where = where.tb_next
            place = f"{where.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{where.tb_lineno}"
            return outcome("error", says=f"{type(error).__name__} at {place}: "
                           f"{' '.join(str(error).split())[:400]}")


def run_pretended(check: Check) -> Outcome:
    """One check on a device that is pretended: that it runs there to its end."""
    from parity_tests.device import pretended
    with pretended.device() as device:
        return run(check, device)


def default_device() -> str:
    """`cuda` where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
