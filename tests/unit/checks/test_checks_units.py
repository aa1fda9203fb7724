from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mlbench.units import percent, plain


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2130, "ns", "2.13 us"),
        (0, "ns", "0 ns"),
        (312, "ns", "312 ns"),
        (312.4, "ns", "312 ns"),
        (2.125, "ns", "2.12 ns"),
        (0.5, "ns", "0.500 ns"),
        (999.4, "ns", "999 ns"),
        (999.96, "ns", "1.00 us"),
        (999_999, "ns", "1.00 ms"),
        (6_200_000, "ns", "6.20 ms"),
        (1.5e9, "ns", "1.50 s"),
        (4.2e12, "ns", "4200 s"),
        (-2130, "ns", "-2.13 us"),
        (12_400_000, "bytes", "12.4 MB"),
        (512, "bytes", "512 B"),
        (1000, "bytes", "1.00 kB"),
        (3.21e9, "bytes", "3.21 GB"),
        (1_200_000, "1/s", "1.20 M/s"),
        (312, "1/s", "312 /s"),
        (0.25, "1/s", "0.250 /s"),
        (0.00000123456, "usd", "0.00000123 usd"),
        (0, "usd", "0.00 usd"),
        (0.0123, "j", "12.3 mJ"),
        (0, "j", "0 J"),
        (2.5, "W", "2.50 W"),
        (0.97222, "", "0.9722"),
        (1, "", "1"),
        (31.25, "dB", "31.25 dB"),
        (math.nan, "ns", "nan ns"),
        (math.inf, "", "inf"),
    ],
)
def test_numbers_read_as_people_write_them(value, unit, text) -> None:
    assert plain(value, unit) == text


def test_more_digits_on_request() -> None:
    assert plain(5_000_100, "ns", 5) == "5.0001 ms"
    assert plain(0.12345678, "", 6) == "0.1234568"


@given(st.floats(1, 1e11), st.sampled_from(["ns", "bytes", "1/s"]))
def test_the_text_is_within_half_a_digit(value, unit) -> None:
    number, word = plain(value, unit).split(" ")
    scale = {"n": 1, "u": 1e3, "m": 1e6, "s": 1e9, "B": 1, "/": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    assert float(number) * scale[word[0]] == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.975, "97.5 %"),
        (1 / 3, "33.3 %"),
        (0.99999, "99.999 %"),
        (0.9996, "99.96 %"),
        (0.00002, "0.002 %"),
        (0.000001, "< 0.001 %"),
        (2.5, "250 %"),
        (24.0, "2400 %"),
    ],
)
def test_shares_are_never_rounded_to_none_or_all(share, text) -> None:
    assert percent(share) == text


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_a_part_is_never_all_and_never_nothing(share) -> None:
    assert percent(share) not in ("0 %", "100 %") or share > 1 - 1e-15
