"""What the manual pages, the catalog and the completions say is what the code does.

The pages are mdoc(7), read here as text: each option and variable has an `.It` line of one form.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from argparse import Action
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from lognot import (
    action,
    budget,
    dispatch,
    executor,
    frequency,
    guard,
    ini,
    keeper,
    ledger,
    logs,
    messages,
    output,
    pattern,
    quoting,
    service,
    settings,
    sources,
    supervisor,
)
from lognot.check import check_actions, check_patterns
from lognot.cli import _parser
from lognot.config import parse_config
from lognot.journal import Event
from lognot.options import OPTIONS, Where
from unit.people import ROOT, database

CHECKOUT = Path(__file__).resolve().parents[2]
CODE = sorted((CHECKOUT / "src" / "lognot").glob("*.py"))
PAGES = [CHECKOUT / "man" / "lognot.8", CHECKOUT / "man" / "lognot.conf.5"]
PROGRAM, CONFIG = (page.read_text() for page in PAGES)
CATALOG = (CHECKOUT / "packaging" / "systemd" / "lognot.catalog").read_text()
BASH = CHECKOUT / "packaging" / "completions" / "lognot.bash"
ZSH = CHECKOUT / "packaging" / "completions" / "_lognot"
USERS = database(
    {"root": (0, 0), "_lognot": (990, 990), "_lognot-action": (989, 989)}, {"_lognot-action": (989, ())}
)

_ESCAPES = {
    r"\e": "\\",
    r"\-": "-",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(ga": "`",
    r"\(ha": "^",
    r"\(ti": "~",
    r"\&": "",
}


def plain(roff: str) -> str:
    """What a reader sees of literal text."""
    return re.sub(r"\\(?:\(..|.)", lambda escape: _ESCAPES.get(escape[0], escape[0]), roff)


def section(page: str, title: str, macro: str = "Sh") -> str:
    """The text below a heading, up to the next one."""
    below = rf"^\.{macro} {re.escape(title)}\n(.*?)(?=^\.S[hs] |\Z)"
    found = re.search(below, page, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def items(text: str) -> Iterator[tuple[str, str]]:
    """Each `.It` line of a list without its macro, and what stands below it."""
    for item in re.split(r"^\.It ", text, flags=re.MULTILINE)[1:]:
        head, _, body = item.partition("\n")
        yield head, body


def prose(page: str) -> str:
    """A page as running text: without macros at the beginning of lines, and without line breaks."""
    return " ".join(re.sub(r"^\.\w+ ?", "", line) for line in page.splitlines())


def examples() -> list[str]:
    """The configs in lognot.conf(5): literal blocks that begin with a section and name a log."""
    blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", CONFIG, re.MULTILINE | re.DOTALL)
    return [plain(block) for block in blocks if block.startswith("[")]


# --- lognot.conf(5) ---

PLACES = {
    Where.GENERAL: "Options of [general] only",
    Where.ITEM: "Options of an item only",
    Where.ANYWHERE: "Options of an item, or of [general] as the default of every item",
}


def documented_options() -> dict[str, tuple[Where, str, str | None]]:
    """The options of the page: where, form, default."""
    found = {}
    for where, title in PLACES.items():
        for head, body in items(section(CONFIG, title, "Ss")):
            option = re.fullmatch(r'Cm (\w+) No = Ar (?:"(.+)"|(\S+))', head)
            assert option, head
            assert option[1] not in found, option[1]
            default = re.search(r"^Default:(?:\n\.Ql (\S+)| (none))", body, re.MULTILINE)
            found[option[1]] = (where, option[2] or option[3], default and (default[1] or ""))
    return found


def test_each_option_is_in_the_page_as_in_the_table() -> None:
    expected = {option.name: (option.where, option.form, option.default) for option in OPTIONS}
    assert documented_options() == expected


def test_options_stand_in_alphabetical_order() -> None:
    for title in PLACES.values():
        names = [head.split()[1] for head, _ in items(section(CONFIG, title, "Ss"))]
        assert names == sorted(names)


KIB, MIB = 1024, 1024**2


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (CONFIG, f"at the same time, from 1 to {settings.MAX_ATHREAD_COUNT:,}."),
        (CONFIG, f"From {settings.MIN_LINE_BYTES // KIB}K to {settings.MAX_LINE_BYTES // MIB}M;"),
        (CONFIG, f"From 1 to {settings.MAX_ACTION_TIMEOUT_S:,} (a day)."),
        (CONFIG, f"COUNT is at most {settings.MAX_COUNT:,},"),
        (CONFIG, f"SECONDS at most {settings.MAX_PERIOD_S:,} ({settings.MAX_PERIOD_S // 86_400} days)."),
        (CONFIG, f"more than {settings.MAX_ITEMS:,} items"),
        (CONFIG, f"a file of more than {sources.MAX_FILE_BYTES // MIB} MiB"),
        (CONFIG, f"There may be {sources.MAX_DROPINS:,} of them."),
        (CONFIG, f"up to {ini.MAX_SECTION_NAME_BYTES} bytes of printable text"),
        (CONFIG, f"{frequency.MAX_KEYS:,} texts are remembered"),
        (CONFIG, f"the newest {ledger.JOURNAL_RECORDS:,} matches survive"),
        (CONFIG, f"up to ${quoting.MAX_GROUP};"),
        (CONFIG, f"A value over {action.MAX_VALUE_BYTES // KIB} KiB is cut"),
        (CONFIG, f"over {action.MAX_ENVIRONMENT_BYTES // MIB} MiB together"),
        (CONFIG, f"up to {dispatch.MAX_WAITING:,} of a user"),
        (CONFIG, f"up to {output.MAX_OUTPUT_BYTES // KIB} KiB of each action"),
        (CONFIG, f"a line counts as {output.LINE_COST_BYTES} bytes"),
        (CONFIG, f"more than {messages.MAX_QUOTE_BYTES:,} bytes is broken up"),
        (CONFIG, f"SIGKILL {executor.KILL_AFTER_S:g} seconds later"),
        (CONFIG, f"given up after {pattern.SHORT_MATCH_LIMIT:,} steps"),
        (CONFIG, f"a line over {pattern.SHORT_LINE_BYTES // KIB} KiB after {pattern.MATCH_LIMIT:,} steps"),
        (CONFIG, f"a line over {guard.LONG_LINE_BYTES or 768} bytes it is ended"),
        (CONFIG, f"after {guard.JIT_LIMIT_S * 1000:g} milliseconds of CPU time"),
        (CONFIG, f"({guard.NO_JIT_LIMIT_S * 1000:g} without a just-in-time compiler), and"),
        (CONFIG, f"and {guard.SEARCH_LIMIT_S_PER_BYTE * 10**9:g} more for each megabyte"),
        (CONFIG, f"a budget of {budget.SHARE * 1000:g} milliseconds"),
        (CONFIG, f"given up after {pattern.LEAST_MATCH_LIMIT:,} steps"),
        (CONFIG, f"(over {budget.TINY_LINE_BYTES} bytes, if that does not help)"),
        (CONFIG, f"for {budget.FIRST_BAN_NS // 10**9} seconds, and for twice"),
        (PROGRAM, f"Actions may go on for {supervisor.STOP_GRACE_S:g} seconds"),
        (PROGRAM, f"SIGKILL {executor.KILL_AFTER_S:g} seconds later"),
        (PROGRAM, f"go on for up to {service.LEAVE_S:g} seconds"),
        (PROGRAM, f"ended {keeper.BOOT_ATTEMPTS} times before it was ready"),
        (PROGRAM, f"up to {keeper.LONGEST_FAILING_DELAY_S:g} seconds, and at once on a reload"),
        (PROGRAM, f"comes again every {keeper.FAILING_SAID_EVERY_NS // 60 // 10**9} minutes"),
        (PROGRAM, f"up to {logs.MAX_ROTATED} old files"),
        (PROGRAM, f"tried again every {supervisor.RETRY_LIMITED_S:g} seconds"),
    ],
    ids=lambda value: value if len(value) < 100 else "",
)
def test_limits_are_those_of_the_code(page: str, text: str) -> None:
    assert text in re.sub(r" +([,.;])", r"\1", prose(page))


def test_each_variable_of_an_action_is_in_the_page() -> None:
    given = action.environment(
        name="bob", home="/", item="a", path="/a", kind="upbound", count=1, line=b"ab", spans=[(0, 2), (0, 1)]
    )
    body = section(CONFIG, "Environment", "Ss")
    documented = {name for head, _ in items(body) for name in re.findall(r"[A-Z][A-Z_]+[0-9]?", head)}
    assert documented == {name.decode() for name in given}


def test_fixed_variables_have_the_documented_values() -> None:
    values = {head.removeprefix("Ev "): body for head, body in items(section(CONFIG, "Environment", "Ss"))}
    for name, value in action.BASE_ENVIRONMENT.items():
        assert plain(values[name.decode()].split()[1]) == value.decode()


def test_there_are_examples() -> None:
    assert len([example for example in examples() if "path = " in example]) >= 7


@pytest.mark.parametrize("example", examples(), ids=lambda text: re.findall(r"\[(.+)\]", text)[-1])
def test_each_example_can_be_copied(example: str) -> None:
    if "path = " not in example:  # the syntax alone
        assert example == "[section]\noption = value\n"
        return
    config, problems = parse_config(example.encode(), "example", started_by=ROOT, users=USERS)
    assert problems == ()
    assert config is not None
    assert (*check_patterns(config), *check_actions(config)) == ()


def test_what_the_shell_sees_is_what_the_page_says() -> None:
    shown = re.findall(r"^upbound_action = (.+?) +sh sees  (.+)$", plain(CONFIG), re.MULTILINE)
    assert len(shown) == 3
    for text, seen in shown:
        assert action.parse_template(text.encode()).shell_text.decode() == seen


# --- lognot(8), README and the completions ---


def options_of_the_program() -> list[Action]:
    return _parser()._actions


NAMES = {name for option in options_of_the_program() for name in option.option_strings}


def test_each_option_of_the_program_is_in_the_page() -> None:
    expected = set()
    for option in options_of_the_program():
        argument = f" Ar {option.metavar}" if option.nargs != 0 else ""
        expected.add(" , ".join(f"Fl {name[1:]}{argument}" for name in option.option_strings))
    text = section(PROGRAM, "DESCRIPTION")
    assert {head for head, _ in items(text) if head.startswith("Fl ")} == expected


def test_each_option_of_the_program_is_in_the_synopsis() -> None:
    synopsis = section(PROGRAM, "SYNOPSIS")
    shown = {f"-{name}" for name in re.findall(r"Fl (-[\w-]+)", synopsis)}
    for letters in re.findall(r"Fl (\w+(?: \| \w)*)", synopsis):
        shown.update(f"-{letter}" for letter in letters if letter.isalpha())
    assert shown <= NAMES
    assert [option for option in options_of_the_program() if shown.isdisjoint(option.option_strings)] == []


def test_each_option_of_the_program_is_in_the_readme() -> None:
    rows = re.findall(r"^\| (`-.*?) \|", (CHECKOUT / "README.md").read_text(), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", row)} == NAMES


def completed_by_bash(directory: Path, *words: str) -> list[str]:
    """What the last word can become."""
    script = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lognot; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", script, str(BASH), "lognot", *words]
    answer = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=20, check=True)
    assert answer.stderr == ""
    return answer.stdout.split()


def test_bash_completes_each_option(tmp_path: Path) -> None:
    assert sorted(completed_by_bash(tmp_path, "-")) == sorted(NAMES)
    assert completed_by_bash(tmp_path, "--ret") == ["--retest"]


def test_bash_completes_what_follows_an_option(tmp_path: Path) -> None:
    (tmp_path / "apart").mkdir()
    (tmp_path / "a.conf").touch()
    for option in options_of_the_program():
        for name in option.option_strings:
            found = completed_by_bash(tmp_path, name, "a")
            match option.metavar:
                case "FILE" | "PATH":
                    assert sorted(found) == ["a.conf", "apart"], name
                case "DIR":
                    assert found == ["apart"], name
                case "UID" | "GID":
                    assert "root" in completed_by_bash(tmp_path, name, "roo"), name
                case _:
                    assert found == [], name
    assert completed_by_bash(tmp_path, "--config", "=", "a.") == ["a.conf"]
    assert sorted(completed_by_bash(tmp_path, "--config", "=")) == ["a.conf", "apart"]


ZSH_ACTIONS = {"FILE": "_files", "PATH": "_files", "DIR": "_files -/", "UID": "_users", "GID": "_groups"}


def test_zsh_completes_each_option_and_what_follows_it() -> None:
    found = {}
    for line in ZSH.read_text().splitlines():
        spec = re.fullmatch(r"    '?(?:\([^)]*\))?'?(\{?-[^\[]*)\[[^]]*\](?::[^:]*:(.*?))?'( \\)?", line)
        if line.startswith("    "):
            assert spec, line
            for name in re.findall(r"--?[A-Za-z][\w-]*=?", spec[1]):
                found[name] = spec[2]
    expected = {}
    for option in options_of_the_program():
        for name in option.option_strings:
            takes_value = option.nargs != 0
            what = ZSH_ACTIONS.get(str(option.metavar), " ") if takes_value else None
            expected[f"{name}=" if takes_value and name.startswith("--") else name] = what
    assert found == expected


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_can_read_its_completion() -> None:
    subprocess.run(["zsh", "-n", str(ZSH)], timeout=20, check=True)


def texts_of_the_code() -> str:
    """All texts in the code but those that explain it; an f-string in pieces."""
    nodes = [node for path in CODE for node in ast.walk(ast.parse(path.read_text()))]
    docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and node not in docstrings)
    return "\n".join(text for text in texts if isinstance(text, str))


def test_diagnostics_are_in_the_words_of_the_code() -> None:
    """Of the neighbouring words of each message, half are so in the code: names and numbers come between."""
    code = texts_of_the_code()
    for head, _ in items(section(PROGRAM, "DIAGNOSTICS")):
        pieces = re.split(r"[A-Z]{2,}|\bN\b|\.\.\.|[][()',:;0-9]", plain(head.removeprefix("Sy ")))
        pairs = [" ".join(pair) for words in map(str.split, pieces) for pair in pairwise(words)]
        there = [pair for pair in pairs if pair in code]
        assert len(there) >= len(pairs) / 2, (head, sorted(set(pairs) - set(there)))


# --- both pages ---


@pytest.fixture
def mandoc() -> str:
    program = shutil.which("mandoc")
    if program is None:
        pytest.skip("needs mandoc")
    return program


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say(page: Path, mandoc: str) -> None:
    command = [mandoc, "-T", "lint", "-W", "warning", str(page)]
    lint = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (lint.stdout + lint.stderr, lint.returncode) == ("", 0)


def rendered(mandoc: str, page: Path) -> list[str]:
    command = [mandoc, "-T", "utf8", "-O", "width=80", str(page)]
    text = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout.decode()
    return re.sub(".\b", "", text).splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_terminal_of_80_columns_is_wide_enough(page: Path, mandoc: str) -> None:
    assert [line for line in rendered(mandoc, page) if len(line) > 80] == []


def test_examples_are_rendered_as_they_are_checked(mandoc: str) -> None:
    lines = {line.strip() for line in rendered(mandoc, PAGES[1])}
    assert [line for example in examples() for line in example.splitlines() if line not in lines] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sections_that_are_pointed_to_are_there(page: Path) -> None:
    text = page.read_text()
    headings = set(re.findall(r"^\.S[hs] (.+)$", text, re.MULTILINE))
    assert set(re.findall(r"^\.Sx (.+?)(?: [.,])?$", text, re.MULTILINE)) <= headings


def test_documents_that_are_pointed_to_are_there() -> None:
    """Below its directory of documents, the package has the checkout's README and docs/."""
    named = re.findall(r"/usr/share/doc/lognot/([\w/.-]*\w)", PROGRAM + CONFIG + CATALOG)
    assert named
    assert [name for name in named if not (CHECKOUT / name).is_file()] == []


# --- the catalog ---


def catalog() -> dict[str, tuple[dict[str, str], str]]:
    """Each MESSAGE_ID of the catalog with its header and text."""
    found: dict[str, tuple[dict[str, str], str]] = {}
    for entry in re.split(r"^-- ", CATALOG, flags=re.MULTILINE)[1:]:
        head, _, text = entry.partition("\n\n")
        identifier, *lines = head.splitlines()
        assert identifier not in found, identifier
        found[identifier] = (dict(line.split(": ", 1) for line in lines), text)
    return found


def test_the_catalog_explains_each_event() -> None:
    names = {event.value: event.name for event in Event}
    assert {names.get(identifier, identifier) for identifier in catalog()} == set(names.values())
    for header, text in catalog().values():
        assert (
            {"Subject", "Defined-By", "Support"}
            <= set(header)
            <= {
                "Subject",
                "Defined-By",
                "Support",
                "Documentation",
            }
        )
        assert header["Defined-By"] == "lognot"
        assert text.strip()
        assert max(map(len, text.splitlines())) <= 80


def event_names(node: ast.AST) -> set[str]:
    return {
        child.attr
        for child in ast.walk(node)
        if isinstance(child, ast.Attribute) and ast.unparse(child.value) == "Event"
    }


def keys_of_dicts(function: ast.AST) -> set[str]:
    """The keys of the dicts that a function makes, and that it sets one by one."""
    keys: list[ast.expr | None] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Dict):
            keys.extend(node.keys)
        elif isinstance(node, ast.Subscript):
            keys.append(node.slice)
    return {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}


def fields_sent() -> dict[str, set[str]]:
    """The fields that every record of an event is written with."""
    sent: dict[str, set[str]] = {}
    for path in CODE:
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            writes = [
                call
                for call in calls
                if isinstance(call.func, ast.Attribute)
                and call.func.attr in {"write", "say"}
                and len(call.args) >= 3
            ]
            direct = set().union(*(event_names(call.args[0]) for call in writes))
            for call in writes:
                fields = {keyword.arg.upper() for keyword in call.keywords if keyword.arg}
                if isinstance(call.func, ast.Attribute) and call.func.attr == "say":
                    fields.add("PATH")  # streams.Log.say
                if any(keyword.arg is None for keyword in call.keywords):
                    fields |= {key.upper() for key in keys_of_dicts(function)}
                # What is written under a name was chosen somewhere in the function.
                for name in event_names(call.args[0]) or event_names(function) - direct:
                    sent[name] = sent.get(name, fields) & fields
    return sent


def test_the_catalog_uses_fields_that_are_there() -> None:
    sent = fields_sent()
    assert set(sent) == {event.name for event in Event}
    names = {event.value: event.name for event in Event}
    for identifier, (header, text) in catalog().items():
        used = set(re.findall(r"@(\w+)@", header["Subject"] + text))
        assert used <= {f"LOGNOT_{field}" for field in sent[names[identifier]]}, names[identifier]
