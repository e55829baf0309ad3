"""What a run of `--registry` leaves for people: an HTML table, and a summary that names the first differing tap.

Both are written when the run ends, whatever came of it, from reports that workers of pytest-xdist send too.
The first difference is that of the first op in the order of the registry's rows, which begins with the parts:
a block inherits their errors.
"""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import pytest

from parity_tests.harness import recorder
from parity_tests.harness.compare import ParityError

KINDS = ("op", "special", "recording", "mutant")
MARGINS = tuple((f"worst_{kind}_margin", dtype) for kind in ("forward", "gradient") for dtype in ("float64", "float32"))
STYLE = """:root { color-scheme: light dark; --ink: #1b1c1e; --page: #fff; --line: #d9d9d4;
  --good: #157a4f; --bad: #b3261e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceded; --page: #15171a; --line: #33373d; --good: #6fd3a2; --bad: #f2958d } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 70rem; padding: 0 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding: 1.5rem 0 .4rem; font-weight: 600 }
th, td { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line) }
.pass { color: var(--good) } .fail { color: var(--bad); font-weight: 600 }
pre { white-space: pre-wrap; margin: 0 }"""


class Pages:
    """A pytest plug-in; `rows` are tests as they end, `broken` what could not be collected."""

    def __init__(self, page: str | None, summary: str | None) -> None:
        self.page, self.summary = page, summary
        self.rows: list[dict[str, Any]] = []
        self.broken: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo) -> None:
        """Say with the test, and so in the JUnit file, which op was compared and what differs."""
        kind, op = subject(item)
        if call.when == "call" or call.excinfo is not None:
            known = dict(item.user_properties)
            for name, value in (("parity.kind", kind), ("parity.op", op), ("parity.difference", said(call))):
                if value and name not in known:
                    item.user_properties.append((name, value))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One row for a test, of its call, or of what failed around it."""
        if report.when != "call" and not report.failed:
            return
        told = dict(report.user_properties)
        self.rows.append({"test": report.nodeid.rpartition("::")[2], "kind": told.get("parity.kind", "other"),
                          "op": told.get("parity.op", ""), "outcome": report.outcome,
                          "difference": told.get("parity.difference", "")})

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A registry file, or a program, that cannot be imported."""
        if report.failed:
            lines = [line.removeprefix("E").strip() for line in str(report.longrepr).splitlines() if line.strip()]
            self.broken.append(lines[-1] if lines else report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write what was asked for; the summary is appended, as a workflow's steps share one file."""
        if hasattr(session.config, "workeroutput"):
            return
        for path in filter(None, (self.page, self.summary)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        if self.page:
            Path(self.page).write_text(self.as_html(int(exitstatus)), encoding="utf-8")
        if self.summary:
            with open(self.summary, "a", encoding="utf-8") as file:
                file.write(self.as_markdown(int(exitstatus)))

    # -------------------------------------------------------------------------------------- what is said

    def first(self) -> dict[str, Any] | None:
        """The failing test to look at first: of ops in the order of their rows, then recordings, then bugs."""
        order = {op: i for i, op in enumerate(recorder.STATE["ops"])}
        return min((row for row in self.rows if row["outcome"] == "failed"), default=None, key=lambda row: (
            (*KINDS, "other").index(row["kind"].replace("special", "op")), order.get(row["op"], len(order))))

    def headline(self, code: int) -> str:
        """The outcome in one line."""
        first = self.first()
        if first is not None and " tap " in first["difference"].partition("\n")[0]:
            return f"First difference: {first['difference'].partition(chr(10))[0]}"
        if first is not None:
            return f"{first['test']}: {first['difference'].partition(chr(10))[0]}"
        if self.broken:
            return f"Nothing was compared: {self.broken[0]}"
        if code or not self.rows:
            return f"Nothing was compared: pytest ended with exit code {code}"
        agreed = sum(row["outcome"] == "passed" for row in self.rows)
        left_out = f"; {len(self.rows) - agreed} were skipped" if agreed < len(self.rows) else ""
        return f"All {agreed} checks agree{left_out}" if agreed else "Nothing was compared: every check was skipped"

    def ops(self) -> list[list[str]]:
        """A row an op: its name, verdict, examples, worst error / bound forward and backward.

        Of an op that fails only what was compared before the difference has a margin, so it shows none.
        """
        found = []
        for entry in recorder.STATE["ops"].values():
            verdict = recorder.verdict(entry)
            found.append([entry["op"], verdict, str(entry["examples"]), *(
                f"{entry[kind][dtype]:.2g}" if verdict == "pass" else "–" for kind, dtype in MARGINS)])
        return found

    def others(self) -> list[list[str]]:
        """Every other check: recordings, planted bugs."""
        return [[row["test"], "pass" if row["outcome"] == "passed" else row["outcome"].replace("failed", "fail")]
                for row in self.rows if row["kind"] not in ("op", "special")]

    def as_markdown(self, code: int) -> str:
        """For a workflow's summary."""
        lines = [f"## Parity: {'passed' if code == 0 else 'failed'}", "", escape(self.headline(code)), ""]
        first = self.first()
        if first is not None and first["difference"]:
            lines += ["```text", first["difference"].replace("```", "'''"), "```", ""]
        for head, rows in ((OP_HEAD, self.ops()), (OTHER_HEAD, self.others())):
            if rows:
                lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|",
                          *(f"| {' | '.join(map(escape, row))} |" for row in rows), ""]
        return "\n".join(lines) + "\n"

    def as_html(self, code: int) -> str:
        """One page without scripts or anything to load."""
        outcome = "passed" if code == 0 else "failed"
        parts = ["<!DOCTYPE html>", '<html lang="en"><head><meta charset="utf-8">',
                 '<meta name="viewport" content="width=device-width, initial-scale=1">',
                 f"<title>Parity: {outcome}</title><style>{STYLE}</style></head><body><main>",
                 f"<h1>Parity: {outcome}</h1><p>{html.escape(self.headline(code))}</p>"]
        for row in self.rows:
            if row["outcome"] == "failed" and row["difference"]:
                parts.append(f"<h2>{html.escape(row['test'])}</h2><pre>{html.escape(row['difference'])}</pre>")
        for caption, head, rows in (("Ops: largest error over its bound; 1 or less passes", OP_HEAD, self.ops()),
                                    ("Recordings and planted bugs", OTHER_HEAD, self.others())):
            if rows:
                parts += ['<div class="scroll"><table>', f"<caption>{caption}</caption><thead><tr>",
                          *(f'<th scope="col">{name}</th>' for name in head), "</tr></thead><tbody>",
                          *(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows), "</tbody></table></div>"]
        return "\n".join([*parts, "</main></body></html>", ""])


OP_HEAD = ("op", "verdict", "examples", "value, float64", "value, float32", "gradient, float64", "gradient, float32")
OTHER_HEAD = ("check", "verdict")


def subject(item: pytest.Item) -> tuple[str, str]:
    """What a test compares: its kind, of `KINDS`, and the op's name where it is of one."""
    values = getattr(getattr(item, "callspec", None), "params", {})
    kind = next((name for name in KINDS if name in values), "")
    value = values.get(kind)
    if kind == "special" and isinstance(value, tuple):  # of a registry without special cases pytest skips the test
        value = value[0]
    op = getattr(value, "op", "") if kind == "recording" else value
    return kind, op if isinstance(op, str) else ""


def said(call: pytest.CallInfo) -> str:
    """A difference in its own words; of another failure its kind and first line, before Hypothesis's notes."""
    if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
        return ""
    error = call.excinfo.value
    if isinstance(error, ParityError):
        return str(error)
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])


def cell(text: str) -> str:
    """A table cell; a verdict has its colour beside its word."""
    mark = f' class="{text}"' if text in ("pass", "fail") else ""
    return f"<td{mark}>{html.escape(text)}</td>"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return "".join(f"\\{c}" if c in "\\`*_|[]<>#" else c for c in text.replace("\n", " "))
