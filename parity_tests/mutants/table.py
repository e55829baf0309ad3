"""Run every planted bug and write the table that the report shows.

    python -m parity_tests.mutants.table
"""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Annotated

import typer

from parity_tests.mutants.collection import MUTANTS
from parity_tests.mutants.planting import Mutant, catch, revision
from parity_tests.mutants.random_bugs import prepare_worker
from pipelines.support.command_line import Program


def judge(mutant: Mutant) -> dict:
    """One line of the table."""
    began = time.perf_counter()
    caught = catch(mutant)
    row = {"id": mutant.id, "file": mutant.file, "what": mutant.what, "seen": mutant.seen,
           "kind": None, "caught_by": None, "message": None}
    if caught is not None:
        row |= {"kind": caught.kind, "caught_by": caught.by, "message": caught.message}
    return row | {"seconds": round(time.perf_counter() - began, 2)}


def command(workers: Annotated[int, typer.Option(help="Processes.")] = 2,
            json_file: Annotated[str, typer.Option(
                "--json", metavar="FILE", help="Where the table goes.")] = "results/mutants.json") -> int:
    """Run every planted bug and write the table that the report shows; exit 1 if one survives."""
    with multiprocessing.get_context("spawn").Pool(workers, prepare_worker) as pool:
        rows = []
        for row in pool.imap(judge, MUTANTS):
            rows.append(row)
            print(f"{len(rows):3d}/{len(MUTANTS)} {row['id']}: {row['kind'] or 'SURVIVED'} "
                  f"{row['caught_by'] or ''}", flush=True)
    caught = sum(row["kind"] is not None for row in rows)
    path = Path(json_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"revision": revision(), "caught": caught, "total": len(rows),
                                "mutants": rows}, indent=1) + "\n")
    print(f"{caught} of {len(rows)} caught; table: {path}")
    return int(caught < len(rows))


main = Program("python -m parity_tests.mutants.table", command)


if __name__ == "__main__":
    raise SystemExit(main())
