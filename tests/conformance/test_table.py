"""docs/conformance.md and these tests say the same: each rule once, and nothing that is not tested or decided."""

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

TABLE = Path(__file__).parents[2] / "docs" / "conformance.md"
DOCSTRING = re.compile(r"RFC (\d+), section (\d+(?:\.\d+)*): (.+)\.")
ROW = re.compile(r"\| (\d+) \| (\d+(?:\.\d+)*) \| (.+?) \| (.+) \|")


class Rule(NamedTuple):
    """A rule of an RFC, and how it is met: the name of a test in backquotes, or a decision."""

    rfc: int
    section: str
    text: str
    how: str


def rows() -> list[Rule]:
    lines = [line for line in TABLE.read_text().splitlines() if re.match(r"\| \d", line)]
    found = [ROW.fullmatch(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return [Rule(int(match[1]), match[2], match[3], match[4]) for match in found if match]


def functions() -> dict[str, str]:
    """Return the docstring of every test by its name."""
    modules = [path for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__)]
    nodes = [node for path in modules for node in ast.parse(path.read_text()).body]
    tests = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert len({test.name for test in tests}) == len(tests)
    return {test.name: ast.get_docstring(test) or "" for test in tests}


def test_every_test_says_which_rule_it_holds() -> None:
    assert [name for name, docstring in functions().items() if not DOCSTRING.fullmatch(docstring)] == []


def test_every_test_is_in_the_table_and_every_test_in_the_table_is_there() -> None:
    tested = set()
    for name, docstring in functions().items():
        match = DOCSTRING.fullmatch(docstring)
        assert match
        tested.add(Rule(int(match[1]), match[2], match[3], f"`{name}`"))
    assert {row for row in rows() if row.how.startswith("`")} == tested


def test_what_is_not_tested_is_a_decision_with_a_reason() -> None:
    for row in rows():
        assert row.how.startswith("`") or re.match(r"Decision: \S.{20,}\.$", row.how), row


def test_the_table_is_in_order_and_says_nothing_twice() -> None:
    order = [(row.rfc, [int(number) for number in row.section.split(".")]) for row in rows()]
    assert order == sorted(order)
    assert len(set(rows())) == len(rows())


@pytest.mark.parametrize("rfc", [1034, 1035, 2181, 2308, 3597, 4035, 4343, 5452, 6891, 6895, 7766, 7828, 7873, 8020])
def test_the_foundations_are_covered(rfc: int) -> None:
    assert rfc in {row.rfc for row in rows()}
