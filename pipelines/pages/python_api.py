"""The page of the Python API: which names are public; their docstrings are put in when the site is built."""

from __future__ import annotations

import inspect
from types import ModuleType

import port

# What people look for first; the rest follows in the order of the alphabet.
FIRST = ("load", "save", "from_tf", "to_tf", "read_checkpoint", "write_checkpoint", "build", "ImageAutoencoder",
         "PartAutoencoder", "HierarchyAutoencoder", "ConstellationAutoencoder", "Result", "Noise", "noise_plan",
         "Config", "ConfigError")


def names() -> list[str]:
    """All public names of the package, those first that people look for first."""
    return [*FIRST, *sorted(set(port.__all__) - set(FIRST))]


def entry(name: str) -> str:
    """A heading and the place whose docstring follows it."""
    thing = getattr(port, name)
    if isinstance(thing, ModuleType):
        place, options = thing.__name__, "show_root_members_full_path: false"
    else:
        thing = inspect.unwrap(thing)
        place, options = f"{thing.__module__}.{thing.__qualname__}", "show_root_members_full_path: true"
    return f"""::: {place}
    options:
      heading: port.{name}
      toc_label: {name}
      {options}
"""


def page() -> str:
    """The page in Markdown, with a directive for each name."""
    return "\n".join(["""# Python

What `import port` offers. Images are float32 `[batch, channels, height, width]` in [0, 1]; taps and recordings have
their channels last, as the original has. `import port` needs PyTorch, NumPy, SciPy, scikit-learn, safetensors and
jaxtyping, and never TensorFlow.
""", *(entry(name) for name in names())])
