"""Session of the parity suite: threads, tiers, header, dead expected failures, parity.json.

With `--tier=device` nothing here needs TensorFlow, Hypothesis or beartype, and a GPU stays visible: only
test_device.py is collected then.
"""

from __future__ import annotations

import os

# One thread each: workers of pytest-xdist share the cores. Set before torch and TensorFlow load.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS",
              "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json  # noqa: E402
import random  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

from parity_tests.goldens import REPOSITORY  # noqa: E402
from parity_tests.goldens.shared import pytest_itemcollected  # noqa: E402, F401
from parity_tests.harness import recorder  # noqa: E402
from parity_tests.harness.pages import Pages  # noqa: E402
from parity_tests.harness.registry_file import RegistryFiles  # noqa: E402
from parity_tests.harness.report import environment, parity_json, summary_lines  # noqa: E402
from parity_tests.harness.tiers import EXAMPLES, MUTANTS, in_tier, test_file  # noqa: E402
from parity_tests.harness.timing import Timing  # noqa: E402

DEVICE_TEST = "test_device.py"
XFAILS = Path(__file__).with_name("xfails.txt")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--tier`, `--mutants`, `--registry` and where reports go; the same for an installed package (scae_parity.py)."""
    group = parser.getgroup("parity")
    group.addoption("--tier", choices=sorted(EXAMPLES), default="default",
                    help="smoke (under 90 s), default, deep (many examples, random seed), or device "
                    "(the port alone, on a GPU where there is one)")
    group.addoption("--mutants", choices=["none", "third", "rest", "all"], default=None,
                    help="planted bugs: none (smoke), a fixed third, the rest, or all (default)")
    group.addoption("--registry", metavar="PATH", default=None,
                    help="check the pair of this registry file alone (docs/port_your_own_model.md)")
    group.addoption("--parity-json", default=None,
                    help="where the report goes (default results/tests/parity.json; the parity stage "
                    "of DVC writes its own; with --registry, and of an installed package, none is written "
                    "unless asked for)")
    group.addoption("--parity-html", metavar="FILE", default=None, help="also the table as one page")
    group.addoption("--parity-summary", metavar="FILE", default=None,
                    help="append a summary in Markdown, which names the first differing tap ($GITHUB_STEP_SUMMARY)")


def pytest_configure(config: pytest.Config) -> None:
    """What may be loaded, and the Hypothesis profile of the tier."""
    tier = config.getoption("--tier")
    config.xfail_lines = read_xfails()
    config.xfail_used = set()
    if config.getoption("--mutants") is None:
        config.option.mutants = MUTANTS[tier]
    config.timing = Timing(tier)
    config.pluginmanager.register(config.timing)
    page, summary = config.getoption("--parity-html"), config.getoption("--parity-summary")
    if page or summary:
        config.pluginmanager.register(Pages(page, summary))
    enforce_shapes()
    if tier == "device":
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # nothing may need it
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args = [str(test_file(DEVICE_TEST))]
        return
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    # TensorFlow and Triton both bring LLVM and do not share a process; torch's optimizers import Triton
    # when it is there. Eager torch does without.
    sys.modules.setdefault("triton", None)  # type: ignore[arg-type]
    if somebody_elses(config):  # no .hypothesis is left where it is used
        storage = tempfile.TemporaryDirectory(prefix="scae-port-")
        config.add_cleanup(storage.cleanup)
        os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", storage.name)
    import hypothesis
    # Arrays come from a seed, so shrinking finds little; sizes are small as they are drawn.
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    common = {"deadline": None, "print_blob": True, "database": None, "phases": phases,
              "report_multiple_bugs": False,
              "suppress_health_check": list(hypothesis.HealthCheck)}
    hypothesis.settings.register_profile(
        "parity", derandomize=tier != "deep", max_examples=EXAMPLES[tier][0], **common)
    hypothesis.settings.load_profile("parity")
    if tier == "deep" and config.getoption("--hypothesis-seed", None) is None:
        # Workers get the controller's seed, so that they collect the same tests.
        inherited = getattr(config, "workerinput", {}).get("parity_seed")
        seed = random.SystemRandom().randrange(2**32) if inherited is None else inherited
        config.parity_seed = seed
        from parity_tests.harness.hypothesis_internals import force_seed
        force_seed(seed)
    registry = config.getoption("--registry")
    if registry and not Path(registry).is_file():
        raise pytest.UsageError(f"--registry {registry}: no such file; name a Python file with ROWS")
    if registry and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [registry]
    if registry:
        config.pluginmanager.register(RegistryFiles(Path(registry).resolve()))


def somebody_elses(config: pytest.Config) -> bool:
    """Whether the programs compared are not this repository's own: nothing is left where nobody asked for it."""
    return bool(config.getoption("--registry")) or not (REPOSITORY / "pyproject.toml").is_file()


def enforce_shapes() -> None:
    """Check shapes and dtypes in the port's signatures, in test runs only, where beartype is there."""
    if find_spec("beartype") is not None:
        from jaxtyping import install_import_hook
        install_import_hook("port", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The device tier imports no other test file: they need what its machine lacks."""
    alone = config.getoption("--tier") == "device" and collection_path.suffix == ".py"
    return True if alone and collection_path.name != DEVICE_TEST else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Hand the deep tier's seed to a worker."""
    node.workerinput["parity_seed"] = getattr(node.config, "parity_seed", None)


def read_xfails() -> dict[str, str]:
    """Test id → reason, from xfails.txt (`id  # reason`)."""
    found = {}
    for line in XFAILS.read_text().splitlines() if XFAILS.is_file() else []:
        test, _, reason = line.partition("#")
        if test.strip():
            found[test.strip()] = reason.strip()
    return found


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Versions, device, threads, TF32 state, tier."""
    found = environment()
    tier = config.getoption("--tier")
    seed = getattr(config, "parity_seed", None)
    return [" ".join(f"{key} {found[key]}" for key in ("torch", "tensorflow", "numpy", "hypothesis")),
            f"device {found['device']}, threads {found['threads']}, TF32 {found['tf32']}",
            "tier device: the port alone" if tier == "device" else
            f"tier {tier}: {EXAMPLES[tier][0]} examples an op, {EXAMPLES[tier][1]} models"
            + (f"; reproduce with --tier=deep --hypothesis-seed={seed}" if seed is not None else "")]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the tier does not hold; mark expected failures, of which none may be out of date."""
    tier = config.getoption("--tier")
    left_out = [item for item in items if not in_tier(item.path.stem, tier)]
    if left_out and not config.getoption("--registry"):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    for item in items:
        name = item.nodeid.split("/")[-1]
        if name in config.xfail_lines:
            config.xfail_used.add(name)
            item.add_marker(pytest.mark.xfail(reason=config.xfail_lines[name], strict=True))
    collected = {item.nodeid.split("/")[-1].split("::")[0] for item in items}
    dead = [line for line in config.xfail_lines if line not in config.xfail_used
            and line.split("::")[0] in collected]
    if dead and not config.getoption("keyword") and not any("::" in a for a in config.args):
        raise pytest.UsageError(f"xfails.txt: no such test: {', '.join(dead)}")


@pytest.fixture(scope="session", autouse=True)
def threads(request: pytest.FixtureRequest) -> None:
    """One thread for each library, TF32 off."""
    import torch
    if request.config.getoption("--tier") != "device":
        import tensorflow as tf
        tf.debugging.disable_traceback_filtering()  # wraps every op of the eager reference
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture(scope="session")
def tier(request: pytest.FixtureRequest) -> str:
    """smoke, default or deep."""
    return request.config.getoption("--tier")


@pytest.fixture(scope="session")
def model_examples(request: pytest.FixtureRequest) -> int:
    """Number of whole-model configurations in this tier."""
    return EXAMPLES[request.config.getoption("--tier")][1]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands over what it saw; the controller writes the report."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["parity"] = json.dumps(recorder.STATE)
        return
    if not recorder.STATE["ops"] and not recorder.STATE["goldens"]:
        return
    given = config.getoption("--parity-json")
    if not given and somebody_elses(config):
        return
    # Not the parity stage's results/parity/parity.json: a test run must not make that stage stale.
    path = Path(given) if given else REPOSITORY / "results" / "tests" / "parity.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(parity_json(config.getoption("--tier"),
                                           getattr(config, "parity_seed", None)), indent=1) + "\n")
    config.parity_path = path
    if not config.getoption("--registry"):
        config.timing.write(path.with_name("timing.json"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Take in what a worker saw."""
    if "parity" in getattr(node, "workeroutput", {}):
        recorder.merge(json.loads(node.workeroutput["parity"]))


def pytest_terminal_summary(terminalreporter) -> None:
    """The worst margins, and where the whole report is."""
    if recorder.STATE["ops"] or recorder.STATE["goldens"]:
        terminalreporter.section("parity: error / bound (1 or less passes)")
        for line in summary_lines():
            terminalreporter.write_line(line)
        path = getattr(terminalreporter.config, "parity_path", None)
        if path:
            terminalreporter.write_line(f"report: {path}")
