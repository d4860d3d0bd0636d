"""What README and docs/ say is there is there, and their config can be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lognot import messages
from lognot.check import check_actions, check_patterns
from lognot.config import parse_config
from lognot.users import Account

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*CHECKOUT.glob("*.md"), *(CHECKOUT / "docs").glob("*.md")])
ARCHITECTURE = (CHECKOUT / "docs" / "architecture.md").read_text()


def test_the_module_map_is_complete() -> None:
    named = set(re.findall(r"^\| `(\w+\.py)` \|", ARCHITECTURE, re.MULTILINE))
    assert named == {path.name for path in (CHECKOUT / "src" / "lognot").glob("[a-z]*.py")}


def test_every_message_is_named() -> None:
    sent = {kind.__name__ for kind in messages._TYPES.values()}
    assert {name for name in sent if not re.search(rf"\b{name}\b", ARCHITECTURE)} == set()


def test_each_threat_has_tests_that_are_there() -> None:
    text = (CHECKOUT / "docs" / "security.md").read_text()
    table = text.partition("## Threat model")[2].partition("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    for row in rows:
        shown_by = re.findall(r"`([^`]+)`", row[-1])
        assert shown_by, row
        path = ""
        for name in shown_by:
            file, _, test = name.partition("::")
            path = file or path
            if not path.startswith("make "):
                assert (CHECKOUT / "tests" / path).exists(), name
                assert not test or f"def {test}(" in (CHECKOUT / "tests" / path).read_text(), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_prose_fits_into_120_columns(document: Path) -> None:
    prose = (line for line in document.read_text().splitlines() if not line.startswith(("|", "    ")))
    assert [line for line in prose if len(line) > 120] == []


def test_the_config_of_the_readme_is_good() -> None:
    text = re.search(r"```ini\n(.*?)```", (CHECKOUT / "README.md").read_text(), re.DOTALL)
    assert text
    config, problems = parse_config(text[1].encode(), "README.md", started_by=Account(0, 0, (), "root", "/"))
    assert problems == ()
    assert config is not None
    assert (*check_patterns(config), *check_actions(config)) == ()
