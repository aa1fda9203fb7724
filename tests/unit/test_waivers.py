"""Waivers: what a file of them may say, which of them hold today, and what they do to a comparison."""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path

import pytest

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.record import Comparison
from pytest_mlbench.waivers import Waivers, apply, load, ratio

CASE = "digits/classify[digits_cnn-onnxruntime-int8-cpu]"
OTHER = "digits/classify[digits_cnn-litert-int8-cpu]"
TODAY = date(2026, 6, 1)
ONE = {
    "case": f'"{CASE}"',
    "metric": '"latency.p50"',
    "max_ratio": "1.10",
    "reason": '"int8 kernels replaced by\\n portable ones, see #123"',
    "expires": "2026-12-31",
}


def text(*waivers: dict[str, str | None]) -> str:
    """Return a file of waivers; each is ONE with some keys changed, or left out where None."""
    tables = ({key: value for key, value in {**ONE, **one}.items() if value is not None} for one in waivers)
    return "".join("[[waiver]]\n" + "".join(f"{key} = {value}\n" for key, value in one.items()) for one in tables)


@pytest.fixture
def read(tmp_path):
    """Return a function that loads a text as a file of waivers, on a day."""

    def read(content: str, today: date = TODAY) -> Waivers:
        path = tmp_path / "mlbench-waivers.toml"
        path.write_text(content, encoding="utf-8")
        return load(path, today)

    return read


def compared(change=None, *, verdict="regressed", metric="latency.p50", direction="lower", method="rounds", **values):
    values.setdefault("reason", "latency.p50 is slower")
    return Comparison(metric, "ns", direction, method, verdict, change=change, **values)


# --- the file ------------------------------------------------------------------------------------------


def test_without_a_file_there_are_none(tmp_path):
    assert load(tmp_path / "mlbench-waivers.toml", TODAY) == Waivers()
    assert Waivers().find(CASE, "latency.p50") is None


def test_an_empty_file_holds_none(read):
    assert read("") == Waivers()
    assert read("waiver = []\n") == Waivers()


def test_a_waiver_is_found_by_exactly_its_case_and_metric(read):
    waivers = read(text({}, {"metric": '"memory.peak"', "max_ratio": "2"}))
    found = waivers.find(CASE, "latency.p50")
    assert (found.case, found.metric, found.max_ratio, found.expires) == (CASE, "latency.p50", 1.1, date(2026, 12, 31))
    assert found.reason == "int8 kernels replaced by portable ones, see #123"
    assert waivers.find(CASE, "memory.peak").max_ratio == 2
    assert waivers.find(CASE, "latency.p99") is None
    assert waivers.find(OTHER, "latency.p50") is None


@pytest.mark.parametrize(
    ("today", "holds"), [(date(2026, 12, 30), True), (date(2026, 12, 31), True), (date(2027, 1, 1), False)]
)
def test_it_holds_up_to_and_with_its_last_day(read, today, holds):
    waivers = read(text({}), today)
    assert (waivers.find(CASE, "latency.p50") is not None) is holds
    assert [one.metric for one in waivers.expired] == ([] if holds else ["latency.p50"])


def test_without_a_day_it_is_today(tmp_path):
    path = tmp_path / "mlbench-waivers.toml"
    path.write_text(text({"expires": "2020-01-01"}, {"metric": '"latency.p99"', "expires": "9999-12-31"}), "utf-8")
    waivers = load(path)
    assert [one.metric for one in waivers.expired] == ["latency.p50"]
    assert [one.metric for one in waivers.holding] == ["latency.p99"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[waiver]\n", "waiver: expected a list of tables, found a table (empty); write [[waiver]], not [waiver]"),
        ("waivers = []\n", 'waivers: unknown key; did you mean "waiver"? Keys here: waiver'),
        ("waiver = 3\n", "waiver: expected a list of tables, found 3 (a whole number)"),
        (
            text({"max_ration": "1.2"}),
            'waiver[0].max_ration: unknown key; did you mean "max_ratio"? Keys here: case, metric, max_ratio, reason, '
            "expires",
        ),
        (text({}, {"case": '"digits"'}), 'waiver[1].case: "digits" is no case id; expected SUITE/BENCHMARK[...], as'),
        (text({"case": '"digits/*[a]"'}), 'waiver[0].case: "digits/*[a]" is no case id; expected SUITE/'),
        (text({"metric": "7"}), "waiver[0].metric: expected a string, found 7 (a whole number)"),
        (text({"max_ratio": "0.9"}), "waiver[0].max_ratio: must be at least 1, found 0.9"),
        (text({"max_ratio": '"10 %"'}), 'waiver[0].max_ratio: expected a number, found "10 %" (a string)'),
        (text({"max_ratio": "inf"}), "waiver[0].max_ratio: expected a finite number, found inf"),
        (text({"reason": '" "'}), "waiver[0].reason: expected a string that is not empty"),
        (
            text({"expires": '"2026-12-31"'}),
            "waiver[0].expires: expected a date without quotes or time, as in 2026-12-31, found "
            '"2026-12-31" (a string)',
        ),
        (text({"expires": "2026-12-31T10:00:00"}), "waiver[0].expires: expected a date without quotes or time, as in"),
        (text({}, {}), "waiver[1]: latency.p50 of this case is waived twice, here and in waiver[0]; keep one of them"),
        ("[[waiver]\n", "malformed TOML: "),
        ("waiver = " + "[" * 5000, "its lists or tables are nested too deep"),
    ],
    ids=lambda value: value[:30] if "waiver[" in value or ":" in value else None,
)
def test_what_cannot_be_meant_is_refused_with_its_place(read, tmp_path, content, message):
    with pytest.raises(SuiteError) as raised:
        read(content)
    assert str(raised.value).startswith(f"{tmp_path / 'mlbench-waivers.toml'}: {message}")


@pytest.mark.parametrize("key", ONE)
def test_every_key_is_needed_and_shown_how_to_write(read, key):
    with pytest.raises(SuiteError, match=rf'waiver\[0\]: the key "{key}" is missing; write for example: {key} = '):
        read(text({key: None}))


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    folder, link, words, pipe = (tmp_path / name for name in ("folder", "link", "words", "pipe"))
    folder.mkdir()
    link.symlink_to(tmp_path / "gone")
    words.write_bytes(b"# a\n\xff\n")
    os.mkfifo(pipe)
    for path, message in (
        (folder, "is no regular file"),
        (pipe, "is no regular file"),
        (link, "cannot be read: No such file or directory"),
        (words, "is not UTF-8 text: invalid start byte (at line 2)"),
    ):
        with pytest.raises(SuiteError) as raised:
            load(path, TODAY)
        assert str(raised.value) == f"{path}: {message}"


def test_a_waiver_for_a_case_that_is_not_there_is_an_error_with_a_near_name(read, tmp_path):
    waivers = read(text({}, {"case": f'"{OTHER}"', "expires": "2026-01-01"}, {"case": '"gone/x[y]"'}))
    assert waivers.check_cases({CASE, OTHER, "gone/x[y]"}) == []
    typo = CASE.replace("cnn", "cmn")
    found = [str(one) for one in waivers.check_cases({typo, OTHER})]
    place, remedy = tmp_path / "mlbench-waivers.toml", "Correct it, or take the waiver out"
    assert found == [
        f'{place}: waiver[0].case: there is no case "{CASE}"; did you mean "{typo}"? {remedy}',
        f'{place}: waiver[2].case: there is no case "gone/x[y]"; {remedy}',
    ]
    expired_too = [str(one) for one in waivers.check_cases({CASE, "gone/x[y]"})]
    assert len(expired_too) == 1
    assert "waiver[1].case" in expired_too[0]


def test_what_the_documentation_shows_is_accepted(read):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "accept-a-regression.md").read_text("utf-8")
    shown = page.partition("```toml fragment\n")[2].partition("```")[0]
    assert read(shown).find(CASE, "latency.p50").max_ratio == 1.1
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(ONE)


# --- comparisons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (compared(0.10), 1.10),
        (compared(-0.20), 0.80),
        (compared(-0.20, direction="higher", metric="throughput"), 1.25),
        (compared(0.25, direction="higher", metric="throughput"), 0.80),
        (compared(0.5, method="exact", metric="model.size", base=10.0, candidate=15.0), 1.5),
        # Of an accuracy, `change` is the difference.
        (compared(-0.10, direction="higher", metric="accuracy.top1", method="mcnemar", base=0.9, candidate=0.8), 1.125),
        (compared(-0.10, direction="higher", metric="accuracy.top5", method="runs", base=0.9, candidate=0.8), 1.125),
        (compared(None), None),
        (compared(-1.0, direction="higher"), None),
        (compared(1.0, direction="none"), None),
        (compared(-0.9, direction="higher", metric="accuracy.top1", method="mcnemar", base=0.9, candidate=0.0), None),
        (compared(-0.1, direction="higher", metric="accuracy.top1", method="mcnemar"), None),
        (compared(float("inf")), None),
    ],
)
def test_the_ratio_says_how_many_times_worse(comparison, expected):
    assert ratio(comparison) == (None if expected is None else pytest.approx(expected))


def test_a_regression_within_the_bound_is_accepted_with_the_reason(read):
    waivers = read(text({}))
    before = compared(0.10)
    after = apply(before, waivers, CASE)
    assert after.waived == "int8 kernels replaced by portable ones, see #123"
    assert (after.verdict, after.reason) == ("regressed", before.reason)  # never a pass
    assert before.waived == ""


def test_the_bound_itself_is_accepted_whatever_its_last_digit(read):
    exactly = compared((40 - 41) / 41, direction="higher", metric="throughput")
    assert ratio(exactly) > 1.025  # by rounding
    waivers = read(text({"metric": '"throughput"', "max_ratio": "1.025"}))
    assert apply(exactly, waivers, CASE).waived


def test_a_larger_one_is_not_and_says_what_was_accepted(read):
    after = apply(compared(0.101), read(text({})), CASE)
    assert after.waived == ""
    assert after.reason == ("latency.p50 is slower; its waiver accepts only up to 1.1 times worse, this is 1.101 times")


def test_one_of_unknown_size_is_not_accepted(read):
    after = apply(compared(None, reason=""), read(text({})), CASE)
    assert (after.waived, after.reason) == ("", "its waiver accepts only up to 1.1 times worse")


def test_an_expired_waiver_accepts_nothing_and_says_so(read):
    after = apply(compared(0.01), read(text({"expires": "2026-05-31"})), CASE)
    assert (after.waived, after.reason) == ("", "latency.p50 is slower; its waiver expired on 2026-05-31")


@pytest.mark.parametrize(
    ("comparison", "case"),
    [
        (compared(0.05), OTHER),
        (compared(0.05, metric="latency.p99"), CASE),
        *[(compared(0.05, verdict=verdict), CASE) for verdict in ("pass", "improved", "inconclusive", "invalid")],
    ],
)
def test_what_is_not_waived_stays_as_it_is(read, comparison, case):
    assert apply(comparison, read(text({})), case) is comparison
