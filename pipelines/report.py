"""Stage `report`: one self-contained page of what was measured.

    python -m pipelines.report
    python -m pipelines.report --unfinished      after a `dvc repro` that failed: says which stages did
    python -m pipelines.report --presets all     results/paper.html, see `pipelines.results.paper_report`

Reads the results of the other stages and writes results/report.html with every picture inside. It
shows nothing that no file holds: a part whose file is missing says so and names the command.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.results import margin_bars, plots
from pipelines.results.unfinished import Unfinished, find
from pipelines.support import console, sections, settings
from pipelines.support.command_line import Params, Program, Results, several
from pipelines.support.measured import lines
from pipelines.support.values import BadInput, CheckFailed
from port.checkpoints import run_files
from port.core import files

# An evaluation as this page shows it, of an autoencoder under two protocols.
INITIAL = run_files.MOMENT | {"rec_ll": (run_files.number, type(None))}
BOTH = {"initial": INITIAL, "final": INITIAL | {"test_images": run_files.count}}
SHOWN = run_files.EVALUATION | {"level": run_files.number, "protocols": {"clean": BOTH, "*": BOTH}, "checks": [dict]}
MOVED = {"error": {"*": run_files.number}, "required": {"*": run_files.number}}
MOTIONS = {"motions": [{"motion": str, "initial": MOVED, "final": MOVED}]}
KINDS = ("scae", "ocae", "hierarchy")
TEMPLATES = Path(__file__).parent / "templates"
PICTURES = (
    ("reconstructions", "Reconstructions", "Held-out images; below them the bottom-up "
     "reconstruction (mixture mean, poses of the part encoder), and the top-down one, whose poses "
     "are the winning votes of the object capsules."),
    ("templates", "Templates", "What each part capsule has learned to draw, coloured for the "
     "first of these images."),
    ("parts", "Parts in place", "Each image, then its most present parts where their poses put "
     "them, weighted by presence."),
    ("capsules", "Object capsules alone", "Each image, the top-down reconstruction, then what its "
     "most present object capsules draw alone from their own votes, in order of posterior presence."),
    ("explained", "Which capsule explains which part", "Each image, its parts in the colours of the "
     "object capsules that explain them, then those capsules one by one; a colour is one capsule in "
     "all rows."),
    ("decoded", "Reconstructions", "Held-out images; below them what the decoder makes of their longest "
     "capsule."),
    ("mistakes", "Mistakes", "The test images that the model takes for another class, the surest first."),
)
ROWS = (
    ("posterior_kmeans", "k-means, posterior presences", "shifted"),
    ("prior_kmeans", "k-means, prior presences", "shifted"),
    ("posterior_logistic", "logistic probe, posterior presences", "shifted"),
    ("prior_logistic", "logistic probe, prior presences", "shifted"),
    ("posterior_probe", "probe trained along, posterior presences", None),
    ("prior_probe", "probe trained along, prior presences", None),
)
CONFUSIONS = (("clean_posterior_kmeans", "posterior presences"),
              ("clean_prior_kmeans", "prior presences"), ("clean_accuracy", "classes given"))


def run(wanted: sections.Report, results: str | os.PathLike = settings.RESULTS,
        out: str | os.PathLike | None = None, unfinished: list[Unfinished] | None = None) -> Path:
    """Write the page; stages that are unfinished stand on top.

    Raises:
        BadInput: jinja2 or matplotlib is not installed.
    """
    out = Path(out or Path(results) / "report.html")
    page = render("report.html", gather(wanted, Path(results)) | {"unfinished": unfinished or []})
    return write(out, page)


def render(template: str, shown: dict) -> str:
    """A page from a template of this package.

    Raises:
        BadInput: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BadInput(f"the report needs {error.name}; install it") from None
    loader = jinja2.FileSystemLoader(TEMPLATES)
    engine = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True,
                                lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    engine.filters |= {"share": share, "number": number, "clock": console.clock,
                       "thousands": lambda value: f"{value:,}", "called": called,
                       "along": margin_bars.length, "worst": margin_bars.worst}
    try:
        return engine.get_template(template).render(shown)
    except (jinja2.UndefinedError, TypeError, AttributeError, OverflowError) as error:
        # The files of the other stages have no form of their own here; the message names what is missing.
        raise BadInput(f"{template} cannot be filled: a file of results lacks something or holds it in another form "
                       f"({error}); run the stage that left it again") from error


def write(out: Path, page: str) -> Path:
    """Write a page under a temporary name first."""
    files.write_text(out, page)
    return out


def gather(wanted: sections.Report, results: Path) -> dict:
    """Everything the template shows, from the files of the stages."""
    train = settings.folder_of("train", wanted.preset, wanted.seed, results)
    evaluated = settings.folder_of("evaluate", wanted.preset, wanted.seed, results)
    config = run_files.read(train / "config.json", run_files.CONFIG, {})
    kind = config.get("model", {}).get("model", "scae")
    if kind not in KINDS:
        raise BadInput(f"report.preset {wanted.preset}: this page shows autoencoders with object capsules on images, "
                       f"not models of kind {kind}; {evaluated / 'metrics.json'} has its numbers, and scae report "
                       f"{train} shows its training")
    metrics = run_files.read(evaluated / "metrics.json", SHOWN, {})
    history = train / "history.csv"
    parity = read(results / "parity" / "parity.json", {"ops?": [dict], "goldens?": [dict]})
    return {
        "unfinished": [], "title": wanted.title, "preset": wanted.preset, "seed": wanted.seed,
        "data": read(settings.folder_of("prepare", wanted.preset, results=results)
                     / "metrics.json"),
        "train": run_files.read(train / "metrics.json", run_files.METRICS | {"seconds": run_files.positive}, {}),
        "config": config,
        "environment": run_files.read(train / "environment.json", run_files.ENVIRONMENT, {}),
        **viewpoint(read(settings.folder_of("equivariance", wanted.preset, wanted.seed, results)
                         / "metrics.json", MOTIONS)),
        "evaluated": metrics, "accuracies": accuracies(metrics), "not_measured": lines(metrics),
        "curves": plots.learning_curves(plots.read_history(history)) if history.exists() else [],
        "pictures": pictures(evaluated / "pictures"),
        "confusions": confusions(evaluated / "confusion.csv"),
        "tsne": tsne(evaluated / "pictures" / "tsne.csv"),
        "parity": parity_rows(parity, results),
        "parity_metrics": read(results / "parity" / "metrics.json"),
        "parity_environment": read(results / "parity" / "environment.json"),
        "mutants": mutants(read(results / "mutants.json", {"mutants?": [dict]})),
        "conversion": read(results / "convert" / "verification.json"),
    }


def viewpoint(measured: dict) -> dict:
    """How part poses follow the image, and its chart."""
    return {"equivariance": measured,
            "equivariance_chart": plots.followed(measured["motions"]) if measured else ""}


def read(path: Path, form: Any = dict) -> dict:
    """A JSON file, or an empty mapping where there is none."""
    return run_files.read(path, form, {})


def accuracies(metrics: dict) -> dict:
    """The accuracy table: each measure at step 0, at the end and on pixels, protocols in columns."""
    if not metrics:
        return {}
    baseline = metrics.get("baseline") or {}
    protocols = [{"words": f"{name} protocol", "images": moments["final"]["test_images"],
                  "rec_ll": (moments["initial"]["rec_ll"], moments["final"]["rec_ll"])}
                 for name, moments in metrics["protocols"].items()]
    rows = []
    for measure, words, beside in ROWS:
        cells = []
        for protocol, moments in metrics["protocols"].items():
            clustering = "kmeans_clean" if protocol == "clean" else "kmeans_refitted"
            key = "logistic" if measure.endswith("logistic") else clustering
            cells.append({"initial": moments["initial"].get(measure),
                          "final": moments["final"].get(measure),
                          "baseline": (baseline.get(beside) or {}).get(key) if beside else None})
        if any(measure in moments["final"] for moments in metrics["protocols"].values()):
            rows.append({"name": words, "protocols": cells})
    return {"protocols": protocols, "rows": rows}


def parity_rows(parity: dict, results: Path) -> dict:
    """Ops and recordings of the parity table, row by row and summed; tolerant of missing fields."""
    def margins(row: dict, key: str) -> dict:
        found = row.get(key)
        return found if isinstance(found, dict) else {}

    ops = [{"op": row.get("op", "?"), "room": row.get("room") or str(row.get("op")).rpartition(".")[0],
            "examples": row.get("examples"), "discarded": row.get("discarded_share"),
            "forward": margins(row, "worst_forward_margin"),
            "gradient": margins(row, "worst_gradient_margin"),
            "range": span(row.get("range")), "verdict": str(row.get("verdict", "?"))}
           for row in parity.get("ops") or []]
    for row in ops:
        row["files"] = margin_bars.files_of(row["room"], results)
    goldens = [{"golden": str(row.get("golden", "?")), "kind": str(row.get("kind", "")),
                "margin": row.get("worst_margin"), "verdict": str(row.get("verdict", "?")),
                "reason": row.get("reason", "")} for row in parity.get("goldens") or []]
    return {"ops": margin_bars.failed_first(ops), "rooms": rooms(ops),
            "goldens": margin_bars.failed_first(goldens), "kinds": kinds(goldens),
            "passed": sum(row["verdict"] == "pass" for row in ops),
            "examples": sum(row["examples"] or 0 for row in ops),
            "failures_in_original": parity.get("failures_in_original") or []}


def rooms(ops: list[dict]) -> list[dict]:
    """Ops summed by room, with the worst margins of each."""
    found: dict[str, dict] = {}
    for row in ops:
        entry = found.setdefault(row["room"], {"room": row["room"], "ops": 0, "passed": 0,
                                               "examples": 0, "forward": {}, "gradient": {}})
        entry["ops"] += 1
        entry["passed"] += row["verdict"] == "pass"
        entry["examples"] += row["examples"] or 0
        for side in ("forward", "gradient"):
            for dtype, value in row[side].items():
                entry[side][dtype] = max(entry[side].get(dtype, 0.0), value or 0.0)
    return list(found.values())


def kinds(goldens: list[dict]) -> list[dict]:
    """Recordings summed by what is compared; only those that were compared have a margin."""
    found: dict[str, dict] = {}
    for row in goldens:
        entry = found.setdefault(row["kind"], {"kind": row["kind"], "verdicts": {}, "margin": None,
                                               "worst": ""})
        entry["verdicts"][row["verdict"]] = entry["verdicts"].get(row["verdict"], 0) + 1
        compared = row["verdict"] in ("pass", "fail") and isinstance(row["margin"], int | float)
        if compared and row["margin"] >= (entry["margin"] or 0.0):
            entry["margin"], entry["worst"] = row["margin"], row["golden"]
    return list(found.values())


def span(drawn) -> str:
    """The range drawn, in words."""
    if isinstance(drawn, dict):
        parts = []
        if len(drawn.get("sizes") or []) == 2:
            parts.append("sizes {}-{}".format(*drawn["sizes"]))
        if len(drawn.get("abs") or []) == 2:
            parts.append("values {:.0e}-{:.0e}".format(*drawn["abs"]))
        return ", ".join(parts) or "; ".join(f"{k}: {v}" for k, v in drawn.items())
    return "" if drawn is None else str(drawn)


def mutants(table: dict) -> dict:
    """The table of planted bugs, with its counts."""
    rows = table.get("mutants") or []
    by_kind: dict[str, int] = {}
    for row in rows:
        if row.get("caught_by"):
            kind = str(row.get("kind") or "caught")
            by_kind[kind] = by_kind.get(kind, 0) + 1
    return {"rows": rows, "revision": table.get("revision"), "by_kind": by_kind,
            "caught": table.get("caught", sum(bool(row.get("caught_by")) for row in rows)),
            "total": table.get("total", len(rows))}


def pictures(folder: Path) -> list[dict]:
    """The PNG files as data addresses."""
    found = []
    for name, title, words in PICTURES:
        path = folder / f"{name}.png"
        if path.exists():
            content = base64.b64encode(path.read_bytes()).decode()
            found.append({"title": title, "words": words, "name": name,
                          "source": f"data:image/png;base64,{content}"})
    return found


def confusions(path: Path) -> list[tuple[str, str]]:
    """(title, SVG) of the clusterings shown."""
    if not path.exists():
        return []
    tables = plots.read_confusions(path)
    return [(words, plots.confusion(tables[name])) for name, words in CONFUSIONS
            if name in tables]


def tsne(path: Path) -> list[tuple[str, str]]:
    """(kind of presence, SVG) of the t-SNE maps."""
    return plots.tsne(path) if path.exists() else []


def share(value) -> str:
    """0.123 as 12.3 %, with a second decimal above 99 %; a dash where nothing was measured."""
    if value is None:
        return "\N{EN DASH}"
    return f"{100 * value:.{2 if value > 0.99 else 1}f}\N{NO-BREAK SPACE}%"


def called(chart: str, name: str) -> str:
    """An SVG with a name for those who hear the page."""
    words = name.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return chart.replace('role="img"', f'role="img" aria-label="{words}"', 1)


def number(value) -> str:
    """A margin or likelihood, short."""
    if value is None:
        return "\N{EN DASH}"
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.01 else f"{value:.0e}"


def command(params: Params = "params.yaml", results: Results = "results",
            presets: Annotated[list[str] | None, several(
                metavar="NAME", help="Write results/paper.html over the aggregates of these presets; `all` for every "
                "one that is there.")] = None,
            unfinished: Annotated[bool, typer.Option(
                "--unfinished", help="Say on top of the page which stages of the default pipeline failed; exit 1 "
                "where one did.")] = False) -> None:
    """One self-contained page of what was measured."""
    from pipelines.results import paper_report  # which imports this module

    failed = []
    if presets:
        path = paper_report.run(presets, results)
    else:
        failed = find() if unfinished else []
        path = run(sections.section(sections.Report, "report", params), results, unfinished=failed)
    print(f"Report: {path}")
    if failed:
        raise CheckFailed("; ".join(f"stage {row.stage} {row.verdict} ({row.advice})" for row in failed))


main = Program("python -m pipelines.report", command)


if __name__ == "__main__":
    raise SystemExit(main())
