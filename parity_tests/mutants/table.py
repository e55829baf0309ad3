"""Run every planted bug and write the table that the report shows.

    python -m parity_tests.mutants.table
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path

from parity_tests.mutants.collection import MUTANTS
from parity_tests.mutants.planting import Mutant, catch, revision
from parity_tests.mutants.random_bugs import prepare_worker


def judge(mutant: Mutant) -> dict:
    """One line of the table."""
    began = time.perf_counter()
    caught = catch(mutant)
    row = {"id": mutant.id, "file": mutant.file, "what": mutant.what, "seen": mutant.seen,
           "kind": None, "caught_by": None, "message": None}
    if caught is not None:
        row |= {"kind": caught.kind, "caught_by": caught.by, "message": caught.message}
    return row | {"seconds": round(time.perf_counter() - began, 2)}


def main() -> int:
    """Exit 1 if a mutant survives."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--json", default="results/mutants.json", help="where the table goes")
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(arguments.workers, prepare_worker) as pool:
        rows = []
        for row in pool.imap(judge, MUTANTS):
            rows.append(row)
            print(f"{len(rows):3d}/{len(MUTANTS)} {row['id']}: {row['kind'] or 'SURVIVED'} "
                  f"{row['caught_by'] or ''}", flush=True)
    caught = sum(row["kind"] is not None for row in rows)
    path = Path(arguments.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"revision": revision(), "caught": caught, "total": len(rows),
                                "mutants": rows}, indent=1) + "\n")
    print(f"{caught} of {len(rows)} caught; table: {path}")
    return int(caught < len(rows))


if __name__ == "__main__":
    raise SystemExit(main())
