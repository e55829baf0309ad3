"""Random source mutants of port and reference: operators, constants, axes, flags, dropped detach.

    python -m parity_tests.mutants.random_bugs --n 100 --seed 0

Each is run against the registry-driven checks in this process; what survives them is written to a
copy of the tree and run against `pytest --tier=smoke` as a user would. What fails in such a copy without
any mutant catches nothing: it is found first, and named in the table. The table goes to
`results/random_mutants.json`; survivors are listed with their line for a person to judge.

Not by `mutmut` or `cosmic-ray`: they start a test command for every mutant, and importing torch and TensorFlow alone
takes longer than most mutants live in this process, where only the mutated package is imported again.
"""

from __future__ import annotations

import ast
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from parity_tests.mutants.planting import REPOSITORY, Mutant, catch, revision
from parity_tests.registry import ROOMS
from pipelines.support.command_line import Program

_BINARY = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
           ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.MatMult: ast.Add,
           ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
_COMPARE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
            ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In}
_BOOLEAN = {ast.And: ast.Or, ast.Or: ast.And}
TIME_LIMIT_S = 240  # of processor time, so that a busy machine catches nothing


@dataclass(frozen=True)
class SourceMutant(Mutant):
    """A mutant given by the whole mutated text, with the line it changes."""

    text: str = ""
    line: int = 0

    def source(self) -> str:
        return self.text


def variants(node: ast.AST) -> list[ast.AST]:
    """What may stand in place of one node."""
    kind = type(getattr(node, "op", None))
    if isinstance(node, ast.BinOp) and kind in _BINARY:
        return [ast.BinOp(node.left, _BINARY[kind](), node.right)]
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        return [ast.Compare(node.left, [_COMPARE[type(node.ops[0])]()], node.comparators)]
    if isinstance(node, ast.BoolOp):
        return [ast.BoolOp(_BOOLEAN[kind](), node.values)]
    if isinstance(node, ast.UnaryOp) and kind in (ast.USub, ast.Not):
        return [node.operand]
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            return [ast.Constant(not node.value)]
        if isinstance(node.value, int):
            return [ast.Constant(node.value + 1), ast.Constant(node.value - 1)]
        if isinstance(node.value, float):
            return [ast.Constant(node.value * 1.1 if node.value else 0.1)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "detach" and not node.args:
            return [node.func.value]
        if node.func.attr == "stop_gradient":
            return [node.args[0]]
    return []


def _ignored(tree: ast.Module) -> set[int]:
    """Nodes that no value depends on: docstrings, annotations, raised messages, __all__."""
    ids: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
            parts += [a.annotation for a in arguments if a.annotation] + [node.returns or ast.Pass()]
        elif isinstance(node, ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or (
                isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            parts.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            parts.append(node)  # `Array = Float[…]`
        ids |= {id(child) for part in parts for child in ast.walk(part)}
    return ids


def mutants_of(file: str) -> list[SourceMutant]:
    """Every mutant of one file."""
    text = (REPOSITORY / file).read_text()
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data, skip, found = text.encode(), _ignored(tree), []
    for node in ast.walk(tree):
        if id(node) in skip or not hasattr(node, "end_lineno"):
            continue
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        for i, variant in enumerate(variants(node)):
            new = f"({ast.unparse(ast.fix_missing_locations(variant))})"
            if isinstance(node, ast.Constant):
                new = new[1:-1] if not new.startswith("(-") else new
            mutated = (data[:begin] + new.encode() + data[end:]).decode()
            with contextlib.suppress(SyntaxError):
                compile(mutated, file, "exec")
                found.append(SourceMutant(
                    f"{file}:{node.lineno}:{node.col_offset}:{i}", file, data[begin:end].decode(), new,
                    lines[node.lineno - 1].strip(), text=mutated, line=node.lineno))
    return found


def sample(n: int, seed: int, packages: tuple[str, ...] = ("port", "reference")) -> list[SourceMutant]:
    """n mutants drawn without replacement over the rooms that both packages have."""
    everything = [mutant for package in packages for room in ROOMS
                  for mutant in mutants_of(f"{package}/{room.replace('.', '/')}.py")]
    return random.Random(seed).sample(everything, min(n, len(everything)))


def judge(mutant: SourceMutant) -> dict:
    """What caught the mutant in this process, or that nothing did."""
    expired = []  # hypothesis may put another exception in the place of this one

    def alarm(signum, frame):
        expired.append(f"no answer within {TIME_LIMIT_S} s of processor time")
        raise TimeoutError(expired[0])

    signal.signal(signal.SIGPROF, alarm)
    signal.setitimer(signal.ITIMER_PROF, TIME_LIMIT_S)
    began = time.perf_counter()
    try:
        caught = catch(mutant, all_rooms=True)
    except Exception as error:  # the package does not even import
        kind, by, message = "import", mutant.file, f"{type(error).__name__}: {error}"[:200]
    else:
        kind, by, message = (caught.kind, caught.by, caught.message) if caught else ("", "", "")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if expired:
        kind, message = "time limit", expired[0]
    row = {key: value for key, value in asdict(mutant).items() if key not in ("text", "seen")}
    return row | {"kind": kind, "caught_by": by, "message": message,
                  "seconds": round(time.perf_counter() - began, 2)}


class Tree:
    """Copies of the repository in which the smoke tier runs as a user would run it, without planted bugs.

    Attributes:
        failing: tests that fail there without any mutant, for want of a git history, of recordings or of
            an earlier run; they are left out when a mutant is judged.
        workers: processes of pytest.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers, self.failing = workers, []
        code, self.failing, said = self.run(None)
        if code > 1:  # 0 passed, 1 some failed; all else judges nothing
            raise RuntimeError(f"the smoke tier of an unmutated copy ended with {code}:\n{said[-2000:]}")

    def run(self, mutant: SourceMutant | None) -> tuple[int, list[str], str]:
        """pytest's exit code, the tests that failed and its output; a mutant's run ends at the first."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "tree"
            for name in tracked():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, copy / name)  # .ci/run has to stay executable
            if mutant is not None:
                (copy / mutant.file).write_text(mutant.text)
            words = ["parity_tests", "--ignore=parity_tests/tests/suite/test_mutants.py", "--tier=smoke", "-q",
                     "-n", str(self.workers), "-o", f"cache_dir={folder}/cache",
                     f"--parity-json={folder}/parity.json"]
            words += ["-x"] * (mutant is not None)
            words += [word for test in self.failing for word in ("--deselect", test)]
            around = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
            run = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=copy, text=True,
                                 capture_output=True, stdin=subprocess.DEVNULL,
                                 env=around | {"PYTHONPATH": str(copy)})
            failed = Path(folder) / "cache" / "v" / "cache" / "lastfailed"
            return (run.returncode, sorted(json.loads(failed.read_text())) if failed.is_file() else [],
                    run.stdout + run.stderr)

    def judge(self, mutant: SourceMutant) -> str:
        """The first test that fails for the mutant alone; "" if none does."""
        code, failed, _ = self.run(mutant)
        return (failed[0] if failed else f"exit {code}")[:200] if code else ""


def unmutated() -> SourceMutant:
    """A mutant that changes nothing, which nothing may catch."""
    file = "port/core/ops.py"
    return SourceMutant("unmutated", file, "", "", "", text=(REPOSITORY / file).read_text())


def tracked() -> list[str]:
    """Files of the working tree that belong to the repository, those not added yet too."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (REPOSITORY / name).is_file()]


def prepare_worker() -> None:
    """What conftest.py does for a pytest worker: quiet, one thread, TensorFlow beside torch."""
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]  # see conftest.py
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    import torch
    torch.set_num_threads(1)


def command(n: Annotated[int, typer.Option("--n", help="How many mutants.")] = 100,
            seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
            workers: Annotated[int, typer.Option(help="Processes.")] = 2,
            no_disk: Annotated[bool, typer.Option("--no-disk", help="Skip the smoke tier for survivors.")] = False,
            json_file: Annotated[str, typer.Option(
                "--json", metavar="FILE", help="Where the table goes.")] = "results/random_mutants.json") -> int:
    """Sample, run, write the table; exit 0 whatever survives, since survivors are for a person."""
    drawn, planted_in = sample(n, seed), revision()
    rows = []
    with multiprocessing.get_context("spawn").Pool(workers, prepare_worker,
                                                   maxtasksperchild=25) as pool:
        without = pool.apply(judge, [unmutated()]) if drawn else {"kind": ""}
        if without["kind"]:
            print(f"error: {without['caught_by']} fails without any mutant ({without['message']}); mend it "
                  "first, since it would catch them all", file=sys.stderr)
            return 1
        for i, row in enumerate(pool.imap(judge, drawn), 1):
            rows.append(row)
            mark = f"{row['kind']} {row['caught_by']}" if row["kind"] else "SURVIVED so far"
            print(f"{i:4d}/{len(drawn)} {row['id']}: {row['old']} → {row['new']}  {mark}", flush=True)
    left = [(row, mutant) for row, mutant in zip(rows, drawn, strict=True) if not row["kind"]]
    tree = Tree(workers) if left and not no_disk else None
    if tree is not None:
        print(f"smoke tier of the unmutated copy: {len(tree.failing)} tests fail, which count for nothing: "
              f"{', '.join(tree.failing) or 'none'}", flush=True)
        for row, mutant in left:
            failed = tree.judge(mutant)
            row |= {"kind": "smoke tier" if failed else "", "caught_by": failed}
            print(f"{row['id']}: {failed or 'SURVIVED'}", flush=True)
    survivors = [row for row in rows if not row["kind"]]
    path = Path(json_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"revision": planted_in, "n": len(rows), "seed": seed,
                                "caught": len(rows) - len(survivors),
                                "fails_unmutated": tree.failing if tree else None,
                                "survivors": survivors,
                                "mutants": rows}, indent=1) + "\n")
    print(f"{len(rows) - len(survivors)} of {len(rows)} caught; {len(survivors)} survive:")
    for row in survivors:
        print(f"  {row['file']}:{row['line']}  {row['old']} → {row['new']}    in: {row['what']}")
    print(f"table: {path}")
    return 0


main = Program("python -m parity_tests.mutants.random_bugs", command)


if __name__ == "__main__":
    raise SystemExit(main())
