"""S8: configuration is TOML of limited size and depth; the one YAML file loads safely and has no aliases."""

import time
import tomllib
from pathlib import Path

import pytest
import yaml

from flows.config import ConfigurationError, load_config
from gcl.errors import SourceUnreadable
from gcl.readers.manifest import read_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
LAUGHS = {
    "size": b"a = 1\n" * 200_000,
    "lists": b"a = " + b"[" * 100_000,
    "tables": b"a = " + b"{a = " * 100_000,
    "headers": b"[" + b".".join([b"a"] * 20) + b"]\nb = 1\n",
    "array_tables": b"[[a]]\n" * 10 + b"[a.b.c.d.e.f.g.h.i.j]\nk = 1\n",
    "many": b"".join(b"k%d = 1\n" % i for i in range(50_000)),
    "string": b'a = """' + b"x" * 900_000,
    "digits": b"seed = " + b"9" * 5000,
    "binary": b"\xff\xfe\0\0",
    "nul": b'a = "\0"',
}


@pytest.mark.parametrize("name", LAUGHS)
def test_hostile_toml_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(LAUGHS[name])
    (tmp_path / "graph.toml").write_bytes(LAUGHS[name])
    with pytest.raises(ConfigurationError):
        load_config(file=tmp_path / "run.toml")
    with pytest.raises(SourceUnreadable):
        read_manifest(tmp_path)


KEYS = {"bare": b"a", "double": b'"a"', "single": b"'a'", "spaced": b"a "}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("place", [b"%s = 1\n", b"[%s]\n", b"[[%s]]\n", b"x = {%s = 1}\n"])
def test_dotted_keys_of_a_manifest_are_depth_too(key: str, place: bytes, tmp_path: Path) -> None:
    """They nest without recursion in the parser, and cost it time in the square of their levels."""
    (tmp_path / "graph.toml").write_bytes(place % b".".join([KEYS[key]] * 100_000))
    started = time.perf_counter()
    with pytest.raises(SourceUnreadable, match="levels"):
        read_manifest(tmp_path)
    assert time.perf_counter() - started < 10


def test_long_names_and_lists_of_a_manifest_are_no_levels(tmp_path: Path) -> None:
    (tmp_path / "graph.toml").write_text(f"x = '{'a' * 500_000}'\ny = {[f'f.{i}' for i in range(20_000)]}\n")
    with pytest.raises(SourceUnreadable, match="x: "):
        read_manifest(tmp_path)


@pytest.mark.parametrize("depth", [9, 5_000])
def test_dotted_keys_of_a_configuration_are_depth_too(depth: int, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b".".join([b"a"] * depth) + b" = 1\n")
    with pytest.raises(ConfigurationError):
        load_config(file=tmp_path / "run.toml")


def test_override_of_many_levels_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        load_config(preset="none", overrides=[".".join(["train"] * 5_000) + "=1"])


def yaml_files() -> list[Path]:
    places = [REPOSITORY, *(REPOSITORY / name for name in ("flows", "tasks", "gcl", "data_contracts", ".ci"))]
    return sorted(path for place in places for path in [*place.glob("*.yaml"), *place.glob("*.yml")])


def test_yaml_is_prefects_alone_and_has_no_tags() -> None:
    assert [path.name for path in yaml_files()] == ["prefect.cluster.yaml", "prefect.yaml"]
    for path in yaml_files():
        text = path.read_text("utf-8")
        assert "deployments" in yaml.safe_load(text)
        assert not [
            event for event in yaml.parse(text, Loader=yaml.SafeLoader) if getattr(event, "tag", None)
        ]


def test_the_file_that_up_deploys_has_no_aliases() -> None:
    """The one for clusters repeats its settings by alias; only Prefect reads it, when it is told to."""
    events = list(yaml.parse((REPOSITORY / "prefect.yaml").read_text("utf-8"), Loader=yaml.SafeLoader))
    assert not [event for event in events if isinstance(event, yaml.AliasEvent)]
    assert not [event for event in events if getattr(event, "anchor", None)]


def test_files_of_ours_are_toml_that_parses() -> None:
    for path in [*(REPOSITORY / "flows").rglob("*.toml"), REPOSITORY / "pyproject.toml"]:
        assert tomllib.loads(path.read_text("utf-8"))
