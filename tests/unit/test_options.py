"""The options of the comparison with a base: what they mean, and what cannot be meant."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_mlbench.fitness import CEILING
from pytest_mlbench.options import MOST_ROUNDS, GateOptions, Options
from pytest_mlbench.screening import SCREEN_ROUNDS
from pytest_mlbench.stats import signed_rank


@pytest.fixture
def read(pytester):
    """Return a function that reads the options of a command line, as pytest parsed them."""

    def read(*arguments):
        return Options.from_config(pytester.parseconfig("--mlbench", *map(str, arguments)))

    return read


def refusal(read, *arguments):
    with pytest.raises(pytest.UsageError) as raised:
        read("--mlbench-base", "main", *arguments)
    return str(raised.value)


# --- what they mean -------------------------------------------------------------------------------------------


def test_without_a_base_nothing_is_compared(read):
    assert read().gate is None
    assert read("--mlbench-base=").gate is None
    assert read("--mlbench-strict", "--mlbench-rounds", "0", "--mlbench-max-regression", "much").gate is None


def test_the_defaults(read):
    gate = read("--mlbench-base", "origin/main").gate
    assert gate == GateOptions(
        base="origin/main",
        exact=False,
        python=None,
        lock=None,
        margin=0.03,
        strict=False,
        rounds=None,
        seconds=10.0,
        seed=gate.seed,
        ceiling=CEILING,
    )


def test_what_is_given_is_taken(read, pytester):
    gate = read(
        "--mlbench-base=v1.0",
        "--mlbench-base-exact",
        f"--mlbench-base-python={sys.executable}",
        "--mlbench-max-regression=5 %",
        "--mlbench-strict",
        "--mlbench-rounds=20",
        "--mlbench-base-seconds=2.5",
        "--mlbench-seed=0",
        "--mlbench-noise-ceiling=7.5 %",
    ).gate
    assert gate == GateOptions("v1.0", True, Path(sys.executable), None, 0.05, True, 20, 2.5, 0, 0.075)
    assert read("--mlbench-base=v1.0", "--mlbench-base-lock", "ci/base.lock").gate.lock == Path("ci/base.lock")


def test_a_seed_is_drawn_each_time(read):
    seeds = {read("--mlbench-base=main").gate.seed for _ in range(5)}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_an_interpreter_is_looked_for_from_the_working_folder_and_home(read, pytester, monkeypatch):
    python = pytester.path / "old" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setenv("HOME", str(pytester.path))
    for given in ("old/python", "~/old/python", python):
        assert read("--mlbench-base=main", "--mlbench-base-python", given).gate.python == python


@pytest.mark.parametrize(
    ("text", "share"),
    [("3 %", 0.03), ("3%", 0.03), (" 0.5  % ", 0.005), ("0 %", 0.0), ("0.7 %", 0.007), ("99.9 %", 0.999)],
)
def test_a_share_is_a_percentage(read, text, share):
    gate = read("--mlbench-base=main", f"--mlbench-max-regression={text}", f"--mlbench-noise-ceiling={text}").gate
    assert (gate.margin, gate.ceiling) == (share, share)


# --- what cannot be meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["max-regression", "noise-ceiling"])
@pytest.mark.parametrize(
    "text", ["3", "0.03", "-3 %", "100 %", "1e1 %", "nan %", "inf %", "three %", "", "3 % 4 %", "% 3"]
)
def test_what_is_no_percentage_is_refused(read, option, text):
    assert refusal(read, f"--mlbench-{option}={text}") == (
        f'--mlbench-{option} {text!r}: expected a share below 100 %, as in "3 %"'
    )


@pytest.mark.parametrize("rounds", [0, -1, 401, 10**9])
def test_a_number_of_rounds_that_cannot_be_taken_is_refused(read, rounds):
    assert refusal(read, f"--mlbench-rounds={rounds}") == f"--mlbench-rounds {rounds}: expected 1 to 400"


def test_the_most_rounds_are_what_the_statistics_take():
    assert MOST_ROUNDS + SCREEN_ROUNDS <= signed_rank.MOST


@pytest.mark.parametrize(
    ("given", "shown"), [("0", "0"), ("-1", "-1"), ("nan", "nan"), ("inf", "inf"), ("1e6", "1e+06")]
)
def test_seconds_that_bound_nothing_are_refused(read, given, shown):
    assert refusal(read, f"--mlbench-base-seconds={given}") == (
        f"--mlbench-base-seconds {shown}: expected more than 0 and less than 1000000"
    )


def test_two_environments_for_one_base_are_refused(read):
    assert refusal(read, f"--mlbench-base-python={sys.executable}", "--mlbench-base-lock=base.lock") == (
        "--mlbench-base-python and --mlbench-base-lock both name the base's environment; keep one"
    )


@pytest.mark.parametrize("given", ["gone/bin/python", ".", "plain.txt"])
def test_what_is_no_interpreter_is_refused(read, pytester, given):
    (pytester.path / "plain.txt").write_text("", encoding="utf-8")
    assert refusal(read, f"--mlbench-base-python={given}") == (
        f"--mlbench-base-python {given}: there is no interpreter of that path; correct it"
    )


@pytest.mark.parametrize("option", ["--mlbench-rounds", "--mlbench-seed", "--mlbench-base-seconds"])
def test_what_is_no_number_is_pytests_own_refusal(read, option, capsys):
    with pytest.raises(pytest.UsageError, match=f"argument {option}: invalid"):
        read("--mlbench-base=main", f"{option}=many")


def test_a_refusal_ends_the_session_before_anything_is_collected(pytester):
    pytester.makepyfile(test_ordinary="def test_it(): pass")
    result = pytester.runpytest_inprocess("--mlbench", "--mlbench-base=main", "--mlbench-rounds=0", "test_ordinary.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --mlbench-rounds 0: expected 1 to 400"])
    assert "collected" not in result.stdout.str()
