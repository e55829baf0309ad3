"""What needs TensorFlow, in a process of its own.

TensorFlow and Triton both bring LLVM and do not share a process: a torch that compiles beside a loaded
TensorFlow ends in an abort. So the commands read and write checkpoints without TensorFlow
(`port.checkpoints`) and ask a child for what only the reference can say: how TensorFlow reads a file, and
what the original computes. A process that has TensorFlow already, as the test suite has, answers
itself.

    python -m pipelines.checkpoints.child TASK REPLY < request.json
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.support import boundary, children
from pipelines.support.values import BadInput, CheckFailed

# Task → the function that does it: JSON values in, JSON values out.
TASKS = {"prove": "pipelines.convert:prove_forward", "read back": "pipelines.checkpoints.back:read_back",
         "verify": "pipelines.commands.verify:verify", "record": "pipelines.commands.record:record",
         "records": "pipelines.commands.records:compare_all"}
HOW = "pip install tensorflow"


def installed() -> bool:
    """Whether TensorFlow can be had here; it is not loaded."""
    try:
        return importlib.util.find_spec("tensorflow") is not None
    except ValueError:  # `sys.modules` says that it is not to be had
        return sys.modules.get("tensorflow") is not None


def ask(task: str, **request: Any) -> Any:
    """The answer to a task.

    Args:
        task: of `TASKS`.
        request: its arguments, as JSON has them.

    Raises:
        BadInput: TensorFlow is not installed, or the task's own.
        CheckFailed: the task's own, or the child ended without an answer.
    """
    if not installed():
        raise BadInput(f"{task} needs TensorFlow, which is not installed here: {HOW}; reading and "
                       "converting do not")
    if "tensorflow" in sys.modules:
        return answer(task, request)
    return in_child(task, request)


def in_child(task: str, request: dict[str, Any]) -> Any:
    """The answer of another process, or what it refused with."""
    with tempfile.TemporaryDirectory(prefix="scae-") as folder:
        reply = Path(folder) / "reply.json"
        error = _run(task, request, reply)
        if not reply.is_file():
            raise CheckFailed(f"the comparison with the reference ended without a result ({error})")
        found = json.loads(reply.read_text(encoding="utf-8"))
    for kind in (BadInput, CheckFailed):
        if kind.__name__ in found:
            raise kind(found[kind.__name__])
    return found["answer"]


def _run(task: str, request: dict[str, Any], reply: Path) -> str:
    """Run the child; how it ended, in words."""
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    # The child's own folder is no place to import from; the packages are this process's.
    command = [sys.executable, "-P", "-m", "pipelines.checkpoints.child", task, str(reply)]
    from port.core import files  # late: torch comes with it, which in the child may not come before TensorFlow

    # What this process has open and is to be written to, a shell's `>(command)`, the child has under the same number.
    named = [files.descriptor_of(Path(value)) for value in request.values() if isinstance(value, str)]
    opened = {number for number in named if number is not None and number > 2}
    sys.stdout.flush()
    with children.start(command, pass_fds=tuple(opened), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                        errors="backslashreplace",
                        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}) as child:
        try:
            _, error = child.communicate(json.dumps(request))
        except BaseException:
            child.kill()
            raise
    if child.returncode == -signal.SIGINT or child.returncode == 130:
        raise KeyboardInterrupt
    if child.returncode < 0:
        return f"signal {signal.Signals(-child.returncode).name}"
    last = (error.strip().splitlines() or ["it said nothing"])[-1]
    return f"exit code {child.returncode}: {last}"


def answer(task: str, request: dict[str, Any]) -> Any:
    """Do a task in this process."""
    module, _, function = TASKS[task].partition(":")
    reference_side()
    return getattr(importlib.import_module(module), function)(**request)


def reference_side():
    """The package `reference`, with TensorFlow behind it, imported once and quietly.

    Raises:
        BadInput: TensorFlow is not installed.
    """
    # Eager torch needs no Triton; see above.
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        # Its start-up notes go past every setting, to the file descriptor.
        with _no_stderr():
            import tensorflow as tf

            import reference
            tf.config.list_logical_devices()
    except ImportError as error:
        if error.name is None or not error.name.startswith("tensorflow"):
            raise
        raise BadInput(f"the reference needs TensorFlow, which is not installed here: {HOW}") from None
    return reference


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def main() -> int:
    """The child: one task, its request on stdin, its answer in a file."""
    children.follow_parent()
    task, reply = sys.argv[1:]
    request = json.load(sys.stdin)
    try:
        found = {"answer": answer(task, request)}
    except (BadInput, CheckFailed) as error:
        found = {type(error).__name__: str(error)}
    except OSError as error:  # a full disk under the table that it writes, say
        found = {BadInput.__name__: boundary.of_the_system(error)}
    except ValueError as error:
        from port.configuration.fields import ConfigError  # late: torch may not come before `reference_side`
        if not isinstance(error, ConfigError):
            raise
        found = {BadInput.__name__: str(error)}
    except KeyboardInterrupt:
        return 130
    made = Path(f"{reply}.part")
    made.write_text(json.dumps(found), encoding="utf-8")
    made.replace(reply)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
