"""Who may import whom: forethought → agent → {planners, modules, envs}, envs → modules, and nothing else."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "forethought": {"forethought", "agent", "planners", "modules", "envs"},
    "agent": {"agent", "planners", "modules", "envs"},
    "planners": {"planners"},
    "modules": {"modules"},
    "envs": {"envs", "modules"},
}
FILES = [path.relative_to(ROOT) for folder in ALLOWED for path in sorted((ROOT / folder).rglob("*.py"))]


def package(file: Path) -> tuple[str, ...]:
    """The package that a file's relative imports start from: ``envs/a/b.py`` is in forethought.envs.a."""
    return ("forethought", *(part for part in file.parent.parts if part != "forethought"))


def folder(target: tuple[str, ...]) -> str:
    """The folder that a module of ours lies in."""
    return target[1] if len(target) > 1 and target[1] in ALLOWED else "forethought"


def imports(file: Path, source: str) -> Iterator[tuple[int, bool, str]]:
    """Line, whether it is relative, and the folder, of every import of ours, also inside functions and conditions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = tuple(alias.name.split("."))
                if name[0] in ALLOWED:
                    yield node.lineno, False, folder(name) if name[0] == "forethought" else name[0]
        elif isinstance(node, ast.ImportFrom):
            name = tuple((node.module or "").split(".")) if node.module else ()
            if node.level == 0:
                if name[0] in ALLOWED:
                    yield node.lineno, False, folder(name) if name[0] == "forethought" else name[0]
                continue
            here = package(file)
            base = here[: len(here) - node.level + 1] + name
            for alias in node.names:  # ``from .. import modules`` imports a folder by the name it gives
                yield node.lineno, True, folder((*base, alias.name))


def violations(file: Path, source: str) -> list[str]:
    found = []
    for line, relative, target in imports(file, source):
        if not relative:
            found.append(f"{file}:{line}: absolute import of {target}; write it relatively")
        if target not in ALLOWED[file.parts[0]]:
            found.append(f"{file}:{line}: {file.parts[0]} may not import {target}")
    return found


def test_there_are_files_to_check() -> None:
    assert {file.parts[0] for file in FILES} == set(ALLOWED)
    assert len(FILES) > 30


@pytest.mark.parametrize("file", FILES, ids=str)
def test_imports_follow_the_rule(file: Path) -> None:
    assert not violations(file, (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("file", "source", "count"),
    [
        ("modules/a.py", "from ..agent import config", 1),
        ("modules/a.py", "from .. import agent", 1),
        ("modules/a.py", "def f():\n    from ..planners.cem import CEM", 1),
        ("modules/genie/a.py", "from ...envs import make_env", 1),
        ("modules/genie/a.py", "from ..types import State", 0),
        ("modules/genie/a.py", "from .b import C", 0),
        ("modules/a.py", "from forethought.modules.types import State", 1),
        ("modules/a.py", "import forethought.agent", 2),
        ("modules/a.py", "import envs", 2),
        ("planners/a.py", "from ..modules.types import State", 1),
        ("planners/a.py", "import torch\nfrom .types import Plan", 0),
        ("envs/a.py", "from ..modules.genie import Tokenizer", 0),
        ("envs/a.py", "from ..planners import Plan", 1),
        ("agent/a.py", "from ..envs import make_env\nfrom ..modules.types import State", 0),
        ("agent/a.py", "from .. import version", 1),
        ("agent/a.py", "from ..cli import main", 1),
        ("forethought/a.py", "from .agent.agent import Agent\nfrom .envs import make_env", 0),
    ],
)
def test_the_rule_finds_what_it_should(file: str, source: str, count: int) -> None:
    assert len(violations(Path(file), source)) == count


NEWS = """
import importlib, sys
if {hide}:
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
for name in {names}:
    module = importlib.import_module(name)
    assert module.__file__.startswith({root}), (name, module.__file__)
"""


@pytest.mark.parametrize("hide", [False, True], ids=["as installed", "without the editable install"])
def test_every_module_imports_from_the_checkout_s_root(hide: bool) -> None:
    """Python started there finds ./forethought first, whose subpackages are its siblings."""
    names = [".".join(("forethought", *(p for p in f.with_suffix("").parts if p not in {"forethought", "__init__"})))
             for f in FILES if f.name != "__main__.py"]  # fmt: skip
    code = NEWS.format(hide=hide, names=sorted(set(names)), root=repr(str(ROOT)))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def literals(source: str) -> list[int]:
    """Lines with a string that is a CUDA device (docstrings apart), or a call of ``.cuda()``."""
    tree = ast.parse(source)
    documentation = {
        id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            if re.fullmatch(r"cuda(:\d*)?", node.value.strip().lower()):
                found.append(node.lineno)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
            found.append(node.lineno)
    return sorted(found)


@pytest.mark.parametrize("file", [f for f in FILES if f.parts[0] in {"agent", "planners", "modules"}], ids=str)
def test_no_device_is_written_into_the_code(file: Path) -> None:
    if file.as_posix() in {"agent/agent.py", "agent/config.py"}:  # where the device is chosen
        return
    assert not literals((ROOT / file).read_text(encoding="utf-8"))


def test_device_literals_are_found() -> None:
    assert literals('x.to("cuda:0")\ny.cuda()\ntorch.device(type="CUDA")') == [1, 2, 3]
    assert literals('f"cuda:{index}"') == [1]
    assert literals('"""On cuda."""\nx.to(device)\nprint("expected auto, cpu or cuda")') == []
