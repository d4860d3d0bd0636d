"""The bench: its text is what it promises, and its arithmetic is right. It measures nothing here."""

from __future__ import annotations

import importlib
import re
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
corpus = importlib.import_module("corpus")
report = importlib.import_module("report")
plot = importlib.import_module("plot")
catch_up = importlib.import_module("catch_up")
sys.path.pop(0)

LINES = 10_000


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return list(corpus.mixed(LINES))


def test_mixed_has_the_promised_lines_each_time(lines):
    assert len(lines) == LINES
    assert lines == list(corpus.mixed(LINES))
    assert 90 <= sum(map(len, lines)) / LINES <= 110  # 500,000 are 50 MB
    assert not any("\n" in line for line in lines)


@pytest.mark.parametrize("family", corpus.FAMILIES)
def test_mixed_has_the_promised_matches(lines, family):
    text = "\n".join(lines)
    first, *others = corpus.rules(family, corpus.MAX_RULES)
    assert len(re.findall(first.pattern, text)) == LINES // corpus.FIRST_EVERY
    assert sum(len(re.findall(rule.pattern, text)) for rule in others) == LINES // corpus.OTHERS_EVERY


@pytest.mark.parametrize("family", corpus.FAMILIES)
def test_each_rule_is_another_and_fewer_rules_are_the_first_of_more(family):
    rules = corpus.rules(family, corpus.MAX_RULES)
    assert len({rule.pattern for rule in rules}) == corpus.MAX_RULES
    assert corpus.rules(family, 10) == rules[:10]
    assert all(re.compile(rule.pattern).groups == 2 for rule in rules)


def test_unlike_rules_share_no_word():
    words = Counter(
        word for rule in corpus.rules("unlike", 1000) for word in re.findall(r"[a-z]{2,}", rule.pattern)
    )
    assert max(words.values()) == 1


def test_every_dense_line_matches_and_the_keys_are_as_many_as_promised():
    found = [re.search(corpus.DENSE_PATTERN, line) for line in corpus.dense(5_000, 2_000)]
    assert len(found) == 5_000
    assert all(found)
    assert len({match[1] for match in found}) == 2_000


def test_no_address_is_in_the_mixed_log_often_enough_for_fail2ban_to_ban_it(lines):
    patterns = [re.compile(rule.pattern) for rule in corpus.rules("alike", 10)]
    seen = Counter(match[2] for line in lines for pattern in patterns if (match := pattern.search(line)))
    assert max(seen.values()) < 5


def test_kept_makes_a_file_once_and_forgets_those_of_an_older_corpus(tmp_path):
    old = tmp_path / "text.0.log"
    old.write_text("old\n")
    path = corpus.kept(tmp_path, "text", lambda: ["a", "b"])
    assert path.read_text() == "a\nb\n"
    assert not old.exists()
    assert corpus.kept(tmp_path, "text", lambda: ["other"]).read_text() == "a\nb\n"


def test_median():
    assert report.median([3, 1, 2]) == 2
    assert report.median([4, 1]) == 2.5
    assert report.median([]) is None


def test_ratio_is_missing_when_a_figure_is():
    assert report.ratio(6, 3) == 2
    assert report.ratio(0, 3) == 0
    assert report.ratio(None, 3) is None
    assert report.ratio(6, None) is None
    assert report.ratio(6, 0) is None


def test_percentile_is_a_value_that_was_measured():
    values = list(range(100, 0, -1))
    assert report.percentile(values, 50) == 50
    assert report.percentile(values, 99) == 99
    assert report.percentile([7], 99) == 7
    assert report.percentile([], 50) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (1234567.8, "1,234,568"), (12.345, "12.3"), (1.0, "1.00"), (0.01234, "0.0123")],
)
def test_figures_are_shown_with_three_digits(value, text):
    assert report.shown(value) == text


def test_aims():
    assert report.Aim.most("a", 1.9, 2).met is True
    assert report.Aim.most("a", 2.1, 2).met is False
    assert report.Aim.least("a", 19, 20).met is False
    assert report.Aim.least("a", 20, 20).met is True
    assert report.Aim.most("a", None, 2).row[2:] == ["not measured", "-"]


def test_table_is_markdown_whatever_is_in_a_cell():
    assert report.table(["a", "b"], [["x|y", "1"]]).splitlines() == [
        "| a    |   b |",
        "| ---- | --: |",
        "| x\\|y |   1 |",
    ]


def test_burst_fits_the_budget():
    assert catch_up.fitting(us_per_line=10, budget_s=1.0, lines=500_000) == 100_000
    assert catch_up.fitting(us_per_line=0.1, budget_s=1.0, lines=500_000) == 500_000
    assert catch_up.fitting(us_per_line=0.1, budget_s=1.0, lines=50_000) == 50_000
    assert catch_up.fitting(us_per_line=10_000, budget_s=1.0, lines=500_000) == 5_000


def test_head_is_the_first_lines(tmp_path):
    path = tmp_path / "text"
    path.write_text("a\nbb\nccc\n")
    text = catch_up.Text(path)
    assert text.lines == 3
    assert text.head(2) == b"a\nbb\n"
    assert text.head(9) == b"a\nbb\nccc\n"


def test_plot_is_a_drawing_without_what_was_not_measured():
    drawn = plot.curves("title", "x", "y", {"one": [(1, 0.1), (1000, 20.0)], "none": []})
    assert ElementTree.fromstring(drawn).tag.endswith("svg")
    assert "one" in drawn
    assert "none</text>" not in drawn
    assert plot.curves("title", "x", "y", {"none": []}) == ""
