"""The list of mutations is one that can be carried out."""

from __future__ import annotations

import ast

import pytest

from .mutations import MUTATIONS, ROOT, Mutation


def test_there_are_enough_of_every_folder() -> None:
    assert len(MUTATIONS) >= 30 and len({(one.file, one.new) for one in MUTATIONS}) == len(MUTATIONS)
    assert {one.file.split("/")[0] for one in MUTATIONS} == {"agent", "modules", "planners", "envs"}


@pytest.mark.parametrize("one", MUTATIONS, ids=[f"{number}" for number in range(len(MUTATIONS))])
def test_line_and_test_exist(one: Mutation) -> None:
    source = (ROOT / one.file).read_text()
    assert source.count(one.old) == 1, f"{one.file} has {one.old!r} {source.count(one.old)} times; mend the list"
    assert ast.dump(ast.parse(source.replace(one.old, one.new))) != ast.dump(ast.parse(source))
    file, name = one.test.split("::")
    functions = [node.name for node in ast.parse((ROOT / "tests" / file).read_text()).body
                 if isinstance(node, ast.FunctionDef)]  # fmt: skip
    assert name in functions
