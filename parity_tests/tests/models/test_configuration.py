"""Whatever a configuration is read from: what fits is a configuration, and all else is a `ConfigError`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import port
from parity_tests.tests.models.test_inputs import FLAT as BY_PIXELS
from port.configuration import fields

FLAT = BY_PIXELS | {"ocae": {"model": "ocae"}, "constellation": {"model": "constellation"}}
NESTED = {name: port.config.from_flat(settings).to_arguments() for name, settings in FLAT.items()}
FLAGS = ["--canvas_size=40", "--n_part_caps=24", "--lr=3e-5"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-2, 6) | st.floats() | st.text(max_size=4)
    | st.sampled_from(["unset", "none", "[1]", "[", "1e999", "True", "Q01", "scae", "em", "capsnet", "constellation",
                       10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(max_size=3) | st.sampled_from(["model", "n_caps", "klass", "iterations", "program"]), inner,
        max_size=3), max_leaves=4)


def places(arguments: dict) -> list[tuple[str, ...]]:
    """Each section and each value, the names that stand in no configuration yet among them."""
    return [("model",), ("repairs",), ("program",), *((name,) for name in arguments),
            *((name, key) for name, values in arguments.items() if isinstance(values, dict) for key in values)]


def replaced(arguments: dict, place: tuple[str, ...], value: object) -> dict:
    """The arguments with another value in one place."""
    changed = json.loads(json.dumps(arguments))
    inner = changed
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return changed


def read_or_refused(source: object, reads: tuple) -> None:
    """Each way to read it gives a configuration or refuses it as one."""
    for read in reads:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = read(source)
            except port.ConfigError:
                continue
        if read is not port.config.explicit:
            assert isinstance(found, port.config.AnyConfig)
            assert found == port.config.from_arguments(found.to_arguments())


@pytest.mark.parametrize("name", FLAT)
@given(data=st.data())
def test_any_value_in_any_place(name: str, data: st.DataObject) -> None:
    value, nested, flat = data.draw(JSON), NESTED[name], port.config.to_flat(port.config.from_flat(FLAT[name]))
    arguments = replaced(nested, data.draw(st.sampled_from(places(nested))), value)
    settings = replaced(flat, data.draw(st.sampled_from(places(flat))), value)
    manifest = {"arguments": arguments}
    read_or_refused(arguments, (port.config.from_arguments, port.config.read, port.config.explicit))
    read_or_refused(settings, (port.config.from_flat, port.config.read, port.config.explicit))
    read_or_refused(manifest, (port.config.from_manifest, port.config.read, port.config.explicit))


@given(place=st.sampled_from(["arguments", "flags"]), value=JSON)
def test_any_value_in_a_manifest(place: str, value: object) -> None:
    read_or_refused({place: value}, (port.config.from_manifest, port.config.read, port.config.explicit))


@given(key=st.sampled_from(list(port.config.TRAINING_FLAGS)), value=JSON)
def test_any_value_of_a_training_flag(key: str, value: object) -> None:
    try:
        found = port.config.training_flags({key: value})[key]
    except port.ConfigError:
        return
    assert type(found) is port.config.TRAINING_FLAGS[key]


@given(value=JSON)
def test_any_file(value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    read_or_refused(path, (port.config.from_manifest, port.config.read, port.config.explicit))


@pytest.mark.parametrize(("arguments", "says"), [
    ({"obj_decoder": 3}, "obj_decoder: expected keys and values, found '3'"),
    ({"obj_decoder": "x"}, "obj_decoder: expected keys and values"),
    ({"repairs": 3}, "repairs must be of type"), ({"repairs": "Q01"}, "repairs must be of type .* not 'Q01'"),
    ({"repairs": [3]}, "repairs must be of type"), ({"model": [1]}, "model must be of type"),
    ({"model": "em", "program": [1]}, "program must be of type"),
    ({"model": "em", "routing": 3, "iterations": 2}, "routing: expected keys and values")])
def test_of_another_type(arguments: dict, says: str) -> None:
    with pytest.raises(port.ConfigError, match=says):
        port.config.from_arguments(arguments)


def test_repairs_of_a_command_line() -> None:
    """A list in JSON, as other tuples are written there."""
    assert port.config.from_flat({"repairs": '["Q01"]'}).repairs == ("Q01",)


@pytest.mark.parametrize(("content", "says"), [
    (None, "No such file"), (b"{", "Expecting"), (b"\xff\xfe", "codec"), (b"[]", "expected keys and values")])
def test_a_file_that_cannot_be_read(content: bytes | None, says: str, tmp_path: Path) -> None:
    """The message names the file."""
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(port.ConfigError, match=f"manifest.json.*{says}"):
        port.config.read(path)


def test_a_training_flag_that_is_no_number() -> None:
    with pytest.raises(port.ConfigError, match="lr must be of type float, not 'abc'"):
        port.config.training_flags({"lr": "abc"})


@pytest.mark.parametrize("given", [[], [0.5], "[0.5]", [0.5, 0.5, 0.5]])
@pytest.mark.parametrize("name", ["beta_u", "beta_a", "primary_stddev"])
def test_a_tuple_of_so_many(name: str, given: object) -> None:
    with pytest.raises(port.ConfigError, match=f"{name} must be of type"):
        port.config.from_flat({"model": "em", name: given})
    assert port.config.from_flat({"model": "em", name: "[1, 2]"}).to_arguments()[name] == [1.0, 2.0]


def test_each_number_of_a_tuple_has_its_own_type() -> None:
    assert fields.converted("here", tuple[int, str], [1, "a"]) == (1, "a")
    with pytest.raises(port.ConfigError):
        fields.converted("here", tuple[int, str], ["a", 1])


@pytest.mark.parametrize("padding", ["padding", "conv_padding"])
def test_carried_positions_and_zeros_at_the_edge(padding: str) -> None:
    """The official program's positions are means over windows that lie within the image."""
    with pytest.raises(port.ConfigError, match=f"coordinates 'row'.*{padding} 'SAME'"):
        port.config.from_flat({"model": "em", "coordinates": "row", padding: "SAME"})
