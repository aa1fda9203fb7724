"""Limits as text: operator, number and unit, read into the metric's own unit."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.errors import SuiteError
from pytest_mlbench.quantities import ANY, SHARE, UNITS, Span, parse_amount, parse_limit, parse_limits, parse_regression
from pytest_mlbench.tables import Place

PLACE = Place(Path("bench_a.toml"), "benchmark[0].expect.latency.p99")


@pytest.mark.parametrize(
    ("text", "unit", "op", "value", "written"),
    [
        ("<= 5 ms", "ns", "<=", 5_000_000.0, "ms"),
        ("<=5ms", "ns", "<=", 5_000_000.0, "ms"),
        ("  < 1.1 us ", "ns", "<", 1100.0, "us"),
        ("< 2 µs", "ns", "<", 2000.0, "µs"),
        ("<= 0.25 s", "ns", "<=", 250_000_000.0, "s"),
        ("<= 2 min", "ns", "<=", 120e9, "min"),
        ("> 700 ns", "ns", ">", 700.0, "ns"),
        ("<= 40 MB", "bytes", "<=", 40_000_000.0, "MB"),
        ("<= 200 MiB", "bytes", "<=", 200 * 1024.0**2, "MiB"),
        ("<= 1.5 GiB", "bytes", "<=", 1.5 * 1024**3, "GiB"),
        ("<= 3 kB", "bytes", "<=", 3000.0, "kB"),
        (">= 400 /s", "1/s", ">=", 400.0, "/s"),
        ("<= 0.002 usd", "usd", "<=", 0.002, "usd"),
        (">= 0.97", "", ">=", 0.97, ""),
        ("== 3", "", "==", 3.0, ""),
        ("<= 1e-3", "", "<=", 0.001, ""),
        ("> -1.5E+1", "", ">", -15.0, ""),
        (">= .5", "", ">=", 0.5, ""),
        (">= 98 %", "", ">=", 0.98, "%"),
        (">= 99.9%", "", ">=", 0.999, "%"),
        ("<= 12", None, "<=", 12.0, ""),
        ("<= 3 degC", "degC", "<=", 3.0, "degC"),
    ],
)
def test_a_limit_is_read_into_the_unit_of_its_metric(text, unit, op, value, written):
    limit = parse_limit(text, unit, PLACE)
    assert (limit.op, limit.value, limit.unit, limit.text) == (op, value, written, text.strip())


@pytest.mark.parametrize(
    ("text", "unit", "parts"),
    [
        ("<= 5 MB", "ns", ["is a size", "this metric is a time", '"<= 5 ms"', "ns, us"]),
        ("<= 5 ms", "bytes", ["is a time", "this metric is a size", '"<= 40 MB"']),
        ("<= 5 ms", "", ["is a time", "this metric is a plain number or share", '">= 0.97"']),
        (">= 5 /s", "usd", ["is a rate", "this metric is a price"]),
        ("<= 5 MS", "ns", ['unknown unit "MS"', 'did you mean "ms"?']),
        ("<= 5 KB", "bytes", ['unknown unit "KB"', 'did you mean "kB"?']),
        ("<= 5 parsec", "ns", ['unknown unit "parsec"', "units: ns, us", "min"]),
        ("<= 5", "ns", ["has no unit", "is a time", 'write for example "<= 5 ms"']),
        (">= 5", "1/s", ["has no unit", '">= 400 /s"']),
        ("<= 5 %", "ns", ['unknown unit "%"', "is a time"]),
        ("<= 5 ms", None, ["the unit of this metric is not known", "plain number"]),
        ("5 ms", "ns", ["does not begin with an operator", "<=, <, >=, > and ==", '"<= 5 ms"']),
        ("", "ns", ["does not begin with an operator"]),
        ("=< 5 ms", "ns", ["does not begin with an operator"]),
        ("<== 5 ms", "ns", ["does not begin with an operator"]),
        ("≤ 5 ms", "ns", ["does not begin with an operator"]),
        ("<= ms", "ns", ['no number after "<="']),
        ("<=", "", ['no number after "<="']),
        ("<= 1_000", "", ['unknown unit "_000"']),
        ("<= nan", "", ["finite"]),
        ("<= -inf ms", "ns", ["finite"]),
        ("<= Infinity", "", ["finite"]),
        ("<= 1e999", "", ["finite"]),
        ("<= 1e99999999999999999999", "", ["finite"]),
        ("<= 1e-99999999999999999999", "", ["finite"]),
        ("<= 1e308 min", "ns", ['"<= 1e308 min" is too large']),
        ("<= -5 ms", "ns", ["outside the values this metric can have (at least 0)"]),
        (5, "ns", ["expected a limit, found 5 (a whole number)", "in quotes", '"<= 5 ms"']),
        (0.97, "", ["found 0.97 (a number)", '">= 0.97"']),
        (True, "", ["found true (a boolean)"]),
    ],
)
def test_a_limit_that_says_nothing_names_file_key_and_remedy(text, unit, parts):
    with pytest.raises(SuiteError) as caught:
        parse_limit(text, unit, PLACE)
    message = str(caught.value)
    assert message.startswith("bench_a.toml: benchmark[0].expect.latency.p99: ")
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "span", "parts"),
    [
        (">= 97", SHARE, ["outside", "(0 to 1)", 'for percent write ">= 97 %"']),
        (">= -0.1", SHARE, ["outside", "(0 to 1)"]),
        (">= 101 %", SHARE, ["outside", "(0 to 1)"]),
        (">= 1.5", Span(-1, 1, percent=False), ["outside", "(-1 to 1)"]),
        (">= 20 %", Span(percent=False), ['unknown unit "%"', "plain number"]),
    ],
)
def test_a_bound_that_no_value_can_meet_is_refused(text, span, parts):
    with pytest.raises(SuiteError) as caught:
        parse_limit(text, "", PLACE, span)
    for part in parts:
        assert part in str(caught.value)


def test_percent_is_only_offered_where_it_would_be_right():
    with pytest.raises(SuiteError) as caught:
        parse_limit(">= 400", "", PLACE, SHARE)
    assert "for percent" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_ends_of_a_span_belong_to_it(value):
    assert parse_limit(f"== {value}", "", PLACE, SHARE).value == value


def test_several_limits_are_read_in_order():
    limits = parse_limits([">= 1 us", "<= 1 ms"], "ns", PLACE)
    assert [limit.text for limit in limits] == [">= 1 us", "<= 1 ms"]
    assert parse_limits("<= 1 ms", "ns", PLACE) == limits[1:]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "expected at least one limit, found an empty list"),
        ([">= 5 ms", "<= 3 ms"], 'nothing is both ">= 5 ms" and "<= 3 ms"'),
        (["> 3 ms", "<= 3 ms"], 'nothing is both "> 3 ms" and "<= 3 ms"'),
        (["== 5 ms", "<= 3 ms"], 'nothing is both "== 5 ms" and "<= 3 ms"'),
        (["== 1 ms", "== 2 ms"], 'nothing is both "== 2 ms" and "== 1 ms"'),
    ],
)
def test_limits_that_no_value_satisfies_are_refused(texts, message):
    with pytest.raises(SuiteError, match=r"latency\.p99") as caught:
        parse_limits(texts, "ns", PLACE)
    assert message in str(caught.value)


@pytest.mark.parametrize("texts", [[">= 3 ms", "<= 3 ms"], ["== 3 ms"], [">= 1 ms", ">= 2 ms"]])
def test_limits_that_one_value_satisfies_are_accepted(texts):
    assert len(parse_limits(texts, "ns", PLACE)) == len(texts)


def test_the_bad_one_of_several_limits_is_named_by_its_index():
    with pytest.raises(SuiteError, match=r"latency\.p99\[1\]: .*MB"):
        parse_limits(["<= 5 ms", ">= 5 MB"], "ns", PLACE)


@given(
    number=st.integers(1, 10**6),
    unit=st.sampled_from([(unit, word) for unit, words in UNITS.items() for word in words]),
)
def test_every_unit_scales_by_its_factor_exactly(number, unit):
    metric, word = unit
    limit = parse_limit(f"<= {number} {word}", metric, PLACE, ANY)
    assert limit.value == float(number * UNITS[metric][word])


@given(st.text(max_size=12))
def test_any_text_is_a_limit_or_a_suite_error(text):
    try:
        limit = parse_limit(text, "", PLACE)
    except SuiteError:
        return
    assert limit.op in ("<=", "<", ">=", ">", "==")
    assert limit.holds(limit.value) == (limit.op in ("<=", ">=", "=="))


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [
        ("200 ns", "ns", 200.0),
        (" 1.1us ", "ns", 1100.0),
        ("4 KiB", "bytes", 4096.0),
        ("5 /s", "1/s", 5.0),
        ("1e-6 usd", "usd", 1e-6),
        ("0.002", "", 0.002),
        ("0.2 %", "", 0.002),
        ("0 ns", "ns", 0.0),
        ("7", None, 7.0),
        ("3 degC", "degC", 3.0),
    ],
)
def test_an_amount_is_read_into_the_unit_of_its_metric(text, unit, amount):
    assert parse_amount(text, unit, PLACE) == amount


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        (200, "ns", 'expected an amount, found 200 (a whole number); write it in quotes, for example "200 ns"'),
        (None, "", 'expected an amount, found None (NoneType); write it in quotes, for example "0.002"'),
        ("<= 200 ns", "ns", '"<= 200 ns" does not begin with a number; write for example "200 ns"'),
        ("ns", "ns", '"ns" does not begin with a number'),
        ("200", "ns", '"200" has no unit; this metric is a time: write for example "200 ns"'),
        ("200 kb", "bytes", '"200 kb": unknown unit "kb"; did you mean "kB"? This metric is a size'),
        ("200 ns", "1/s", '"200 ns" is a time, but this metric is a rate: write for example "5 /s"'),
        ("200 K", "degC", '"200 K": unknown unit "K". This metric is in degC: write for example "5 degC"'),
        ("-1 ns", "ns", '"-1 ns" must be at least 0; write for example "200 ns"'),
        ("1e999 ns", "ns", '"1e999 ns": the number must be finite'),
        ("1e-99999999999999999999 ns", "ns", "the number must be finite"),
        ("1e308 s", "ns", '"1e308 s" is too large'),
    ],
)
def test_an_amount_that_says_nothing_is_refused(text, unit, message):
    with pytest.raises(SuiteError) as caught:
        parse_amount(text, unit, PLACE)
    assert str(caught.value).startswith("bench_a.toml: benchmark[0].expect.latency.p99: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "points", "margin"),
    [
        ("3 %", False, 0.03),
        ("3%", False, 0.03),
        ("0 %", False, 0.0),
        ("0.1 %", False, 0.001),
        ("99.9 %", False, 0.999),
        ("0.5 points", True, 0.005),
        ("0.07 points", True, 0.0007),
    ],
)
def test_a_regression_is_a_share_as_exact_as_written(text, points, margin):
    assert parse_regression(text, PLACE, points, below=True) == margin


def test_only_what_falls_cannot_be_worse_by_the_whole():
    assert parse_regression("150 %", PLACE, points=False, below=False) == 1.5
    with pytest.raises(SuiteError, match='"150 %" must be below 100 %: no value is so much worse'):
        parse_regression("150 %", PLACE, points=False, below=True)


@given(st.text(max_size=12), st.booleans(), st.sampled_from(["ns", "", None]))
def test_any_text_is_an_amount_and_a_regression_or_a_suite_error(text, points, unit):
    for read in (lambda: parse_amount(text, unit, PLACE), lambda: parse_regression(text, PLACE, points, True)):
        try:
            assert read() >= 0
        except SuiteError:
            continue
