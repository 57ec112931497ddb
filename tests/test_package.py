"""What `import forethought` does and does not do."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import gymnasium
import pytest

import forethought

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints, started in a folder."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no deprecation notices either
    return done.stdout.strip()


def test_import_registers_every_environment() -> None:
    ids = [id for id in gymnasium.registry if id.startswith("forethought/")]
    assert len(ids) == 23
    assert {
        "forethought/procgen-coinrun-v0",
        "forethought/TwoRoom-v0",
        "forethought/DotWall-v0",
        "forethought/Sprite-v0",
        "forethought/Foraging-v0",
        "forethought/Recall-v0",
        "forethought/Look-v0",
        "forethought/Genie-v0",
    } <= set(ids)


def test_import_is_cheap(tmp_path: Path) -> None:
    code = """
import sys, forethought, gymnasium
assert "forethought/TwoRoom-v0" in gymnasium.registry
print(sorted({"torch", "procgen", "gym3", "gym", "minigrid", "matplotlib", "stable_baselines3"} & set(sys.modules)))
"""
    assert python(code, tmp_path) == "[]"


@pytest.mark.parametrize("command", [[], ["--help"], ["--version"], ["envs"]])
def test_explaining_imports_no_torch(tmp_path: Path, command: list[str]) -> None:
    code = f"""
import contextlib, io, sys
from forethought.cli import main
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    main({command!r})
print("torch" in sys.modules)
"""
    assert python(code, tmp_path) == "False"


def test_every_public_name_exists() -> None:
    assert sorted(forethought.__all__) == sorted(set(forethought.__all__))
    for name in forethought.__all__:
        assert getattr(forethought, name) is not None
        assert name in dir(forethought)


def test_names_come_from_where_the_type_checker_looks() -> None:
    assert set(forethought._HOMES) | {"__version__"} == set(forethought.__all__)
    imports = re.findall(r"^    from \.(\S+) import (.+)$", Path(forethought.__file__).read_text(), re.MULTILINE)
    assert {name: home for home, names in imports for name in names.split(", ")} == forethought._HOMES


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        forethought.trian  # noqa: B018


def test_version() -> None:
    assert forethought.__version__ == version("forethought")
    assert f'version = "{forethought.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_checkout_root_without_editable_install() -> None:
    # A plain install leaves ./forethought first on the path of a Python that is started in the checkout.
    code = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if not getattr(finder, "__module__", "").startswith("__editable__")]
import forethought, forethought.planners.types, forethought.agent.config, forethought.envs.make
print(forethought.__file__, forethought.agent.config.__file__, forethought.preset("CartPole-v1").env.id, sep="\\n")
"""
    lines = python(code, ROOT).splitlines()
    assert lines == [str(ROOT / "forethought" / "__init__.py"), str(ROOT / "agent" / "config.py"), "CartPole-v1"]


def test_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "forethought", "nonsense"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown command 'nonsense'")
