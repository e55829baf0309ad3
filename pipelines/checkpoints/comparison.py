"""Comparisons as a table: one row for each tap and side, in order of computation, with its verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import numpy as np

from parity_tests.harness import compare, tolerances
from pipelines.support.output import write_json
from pipelines.support.values import CheckFailed
from port.core import files


@dataclass(frozen=True)
class Row:
    """One tap, gradient, scalar or tensor of one side, held to something.

    Attributes:
        name: as in the recordings.
        side: `port` or `reference`.
        dtype: of the side's run.
        max_abs: largest difference.
        max_rel: the same over the expected array's largest entry.
        ulp: the same in units in the last place, at the expected array's scale.
        bound: largest difference allowed.
        verdict: `pass`, `fail`, or `exact` where every bit agrees.
        note: what a number cannot say.
    """

    name: str
    side: str
    dtype: str
    max_abs: float
    max_rel: float
    ulp: float
    bound: float
    verdict: str
    note: str = ""


@dataclass
class Section:
    """Rows with one expectation, such as a file of a recording.

    Attributes:
        title: what is compared.
        held_to: what it is compared with.
        kind: `tensors`, `pass`, `gradients` or `steps`, which have bounds of different nature.
        rows: in order of computation.
    """

    title: str
    held_to: str
    kind: str = "pass"
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, side: str, dtype: str, actual: np.ndarray | None, expected: np.ndarray,
            bound: float = 0.0, note: str = "") -> Row:
        """Compare an array; shape, type and the places of NaN and infinities count."""
        row = _row(name, side, dtype, actual, np.asarray(expected), bound, note)
        self.rows.append(row)
        return row


def _row(name: str, side: str, dtype: str, actual: np.ndarray | None, expected: np.ndarray, bound: float,
         note: str) -> Row:
    if actual is None:
        return Row(name, side, dtype, np.inf, np.inf, np.inf, bound, "fail", note or "not there")
    actual = np.asarray(actual)
    if actual.shape != expected.shape:
        return Row(name, side, dtype, np.inf, np.inf, np.inf, bound, "fail",
                   f"shape {list(actual.shape)}, expected {list(expected.shape)}")
    a, e = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - e)
    same = (a == e) | (np.isnan(a) & np.isnan(e))
    difference = np.where(same, 0.0, np.where(np.isfinite(difference), difference, np.inf))
    worst, scale = float(difference.max(initial=0.0)), tolerances.scale(e)
    spacing = float(np.spacing(np.asarray(scale or 1.0, dtype if dtype in ("float32", "float64")
                                          else np.float64)))
    note = note or compare.special_note(a, e).strip(" ()") * (worst == np.inf)
    return Row(name, side, dtype, worst, worst / scale if scale else worst, worst / spacing, bound,
               "exact" if worst == 0.0 else "pass" if worst <= bound else "fail", note)


@dataclass
class Report:
    """Everything a run compared, what it could not, and the outcome.

    Attributes:
        title: of the page.
        facts: name → value, shown on top.
        sections: tables.
        notes: what was not found or cannot be compared, in words.
    """

    title: str
    facts: dict[str, str] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def section(self, title: str, held_to: str, kind: str = "pass") -> Section:
        """A new table."""
        self.sections.append(Section(title, held_to, kind))
        return self.sections[-1]

    def as_json(self) -> dict:
        """Sections and notes as plain values, for another process."""
        return {"sections": [asdict(section) for section in self.sections], "notes": self.notes}

    def add(self, other: dict) -> None:
        """Append what another process's report has, as `as_json` gives it."""
        self.sections += [Section(**(section | {"rows": [Row(**row) for row in section["rows"]]}))
                          for section in other["sections"]]
        self.notes += other["notes"]

    def rows(self) -> Iterator[tuple[Section, Row]]:
        """All rows in order."""
        return ((section, row) for section in self.sections for row in section.rows)

    def first_failure(self) -> str:
        """Words for the first row that fails; empty when none does."""
        for section, row in self.rows():
            if row.verdict == "fail":
                return (f"{row.name} of the {row.side} ({row.dtype}) differs from {section.held_to} in "
                        f"{section.title}: " + (row.note or f"max abs {row.max_abs:.3e}, "
                                                f"bound {row.bound:.3e}"))
        return ""

    def worst(self) -> dict[str, dict[str, float]]:
        """Side, dtype and kind → the worst relative difference, and the worst share of a bound."""
        found: dict[str, dict[str, float]] = {}
        for section, row in self.rows():
            if row.dtype in ("float32", "float64") and row.bound > 0:
                # A recording of steps is float32, whatever it is compared with; a gradient that is
                # zero but for rounding has no scale of its own.
                key = f"{row.side} {row.dtype}" + f", {section.kind}" * (section.kind != "pass")
                entry = found.setdefault(key, {"max_rel": 0.0, "of_bound": 0.0})
                entry["max_rel"] = max(entry["max_rel"], row.max_rel)
                entry["of_bound"] = max(entry["of_bound"], row.max_abs / row.bound)
        return found

    def counts(self) -> dict[str, int]:
        """Verdict → rows."""
        verdicts = [row.verdict for _, row in self.rows()]
        return {verdict: verdicts.count(verdict) for verdict in ("exact", "pass", "fail")}

    def plain(self) -> dict:
        """The report as plain values; infinities as text, which JSON has no number for."""
        def clean(row: Row) -> dict:
            return {key: str(value) if isinstance(value, float) and not np.isfinite(value) else value
                    for key, value in asdict(row).items()}

        failure = self.first_failure()
        return {"title": self.title, "verdict": "fail" if failure else "pass", "first_failure": failure,
                **self.facts, "rows": self.counts(), "worst": self.worst(), "notes": self.notes,
                "sections": [{"title": s.title, "held_to": s.held_to, "rows": [clean(r) for r in s.rows]}
                             for s in self.sections]}

    def print(self) -> None:
        """The tables, plain text; equal tensors are only counted."""
        for section in self.sections:
            rows = [row for row in section.rows if row.bound > 0 or row.verdict == "fail"]
            exact = sum(row.verdict == "exact" for row in section.rows)
            print(f"\n{section.title}, held to {section.held_to}: {len(section.rows)} rows, {exact} equal "
                  "in every bit")
            if rows:
                width = max(len(row.name) for row in rows)
                print(f"  {'':{width}} side      dtype     max abs   max rel       ulp     bound  verdict")
            for row in rows:
                print(f"  {row.name:{width}} {row.side:9} {row.dtype:8} {row.max_abs:8.1e}  "
                      f"{row.max_rel:8.1e}  {row.ulp:8.3g}  {row.bound:8.1e}  {row.verdict}"
                      f"{'  ' * bool(row.note)}{row.note}")
        for note in self.notes:
            print(f"note: {note}")

    def print_counts(self, *files: str | None) -> None:
        """How much was compared, the worst shares of a bound, and where the tables are."""
        counts = self.counts()
        print(f"{self.title}: {len(self.sections)} tables, {sum(counts.values())} rows; "
              + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
        worst = {key: entry["of_bound"] for key, entry in self.worst().items()}
        if worst:
            key = max(worst, key=worst.get)
            print(f"closest to its bound: {key}, {worst[key]:.0%} of it")
        print(f"row by row: {' and '.join(filter(None, files)) or 'not written'}")

    def write(self, json_file: str | None, html_file: str | None) -> None:
        """The report as files.

        Raises:
            BadInput: a file cannot be written, or the page needs a package that is missing.
        """
        plain = self.plain()
        if json_file:
            write_json(json_file, plain)
        if html_file:
            from pipelines import report

            files.write_text(html_file, report.render("verification.html", {
                "title": self.title, "facts": self.facts, "sections": self.sections, "notes": self.notes,
                "failure": self.first_failure(), "counts": self.counts(), "worst": self.worst()}))

    def conclude(self) -> None:
        """Raise for the first row that fails.

        Raises:
            CheckFailed: naming the place.
        """
        failure = self.first_failure()
        if failure:
            raise CheckFailed(failure)
