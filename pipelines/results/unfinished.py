"""Which stages of the default pipeline have no result, and why: asked of DVC after a run that failed.

After `dvc repro -k` DVC remembers only what was done. A stage that is not up to date though every stage
it depends on is must have failed; the others were not run for want of its outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.support.values import BadInput

DEFAULT = "dvc.yaml"


@dataclass(frozen=True)
class Unfinished:
    """A stage without a result of the present settings.

    Attributes:
        stage: its name.
        waits_for: failed stages it depends on; empty where it failed itself.
    """

    stage: str
    waits_for: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """`failed` or `not run`."""
        return "not run" if self.waits_for else "failed"

    @property
    def advice(self) -> str:
        """What to do about it."""
        if self.waits_for:
            return f"needs {', '.join(self.waits_for)}"
        log = LOGS.get(self.stage)
        return f"dvc repro -s {self.stage} runs it alone" + (f"; {log}" if log else "")


LOGS = {"parity": "every failure stands in results/parity/pytest.log",
        "convert": "every row stands in results/convert/verification.html"}


def find(root: str | Path = ".") -> list[Unfinished]:
    """Unfinished stages, in the order in which they run; not the page that is made from them.

    Raises:
        BadInput: DVC is not installed, or the folder has no pipeline.
    """
    try:
        import networkx
        from dvc.exceptions import DvcException
        from dvc.repo import Repo
    except ImportError as error:
        raise BadInput(f"which stages failed is asked of DVC, which is not installed: {error}") from None
    try:
        with Repo(str(root)) as repo:
            stale = set(repo.status(targets=[DEFAULT]))
            graph = repo.index.graph  # an edge goes from a stage to one that it depends on
            order = [stage for stage in networkx.topological_sort(graph.reverse())
                     if stage.addressing in stale]
            above = {stage: [other for other in order if other in networkx.descendants(graph, stage)]
                     for stage in order}
    except DvcException as error:
        raise BadInput(f"DVC cannot say which stages failed: {error}") from None
    failed = [stage for stage in order if not above[stage]]
    rows = [*(Unfinished(stage.name) for stage in failed),
            *(Unfinished(stage.name, tuple(other.name for other in failed if other in above[stage]))
              for stage in order if above[stage])]
    return [row for row in rows if row.stage != "report"]
