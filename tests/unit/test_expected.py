"""The expected set: the file, what a run may differ in, and what is told of it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import get_args

import pytest

from pytest_mlbench.completeness import in_ci
from pytest_mlbench.errors import MlbenchError, SuiteError
from pytest_mlbench.expected import (
    Collected,
    Deviation,
    What,
    changes,
    deviations,
    lines_of,
    load,
    save,
    text_of,
    unmeasured,
    updated,
)
from pytest_mlbench.schemas import load_schema

A, B, C = "digits/classify[cnn-ort-fp32-cpu]", "digits/classify[cnn-ort-int8-cpu]", "faces/find[net-tvm-fp16-cpu]"


def collected(cases=(), *, suites=None, selected=None, deselected=(), unchecked=None) -> Collected:
    """Return what was collected: every case selected, in a run of the whole suites folder, unless told otherwise."""
    found = dict(cases) if isinstance(cases, dict) else dict.fromkeys(cases)
    chosen = set(found) - set(deselected) if selected is None else set(selected)
    return Collected(found, suites, chosen, set(deselected), unchecked)


def told(expected, found, *, all_run=False) -> list[str]:
    return [str(one) for one in deviations(expected, found, all_run=all_run)]


# --- the file ------------------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "expected-cases.txt"
    cases = {C: "no fp16 # here: yet", A: None, B: None}
    save(path, cases)
    assert load(path) == cases
    assert path.read_bytes().decode().splitlines()[1:] == [A, B, f"{C}  # skip: no fp16 # here: yet"]
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert text_of({}).startswith("# Cases that ")


def test_comments_blank_lines_and_windows_lines_are_read(tmp_path):
    path = tmp_path / "expected-cases.txt"
    path.write_bytes(f"\ufeff# ours\r\n\r\n  {A} \r\n{B} # skip:  no\tfp16 \r\n".encode())
    assert load(path) == {A: None, B: "no fp16"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("digits", '"digits" is no case id; expected SUITE/BENCHMARK[...], alone or followed by "  # skip: REASON". '),
        (f"{A} {B}", "is no case id; expected"),
        (f"{A}  # because", "is no case id; expected"),
        (f"- {A}", "is no case id; expected"),
        ("suites/digits/bench_digits.toml::classify[a]", "is no case id; expected"),
        ("=======", '"=======" is no case id; expected'),
        ("x" * 200, f'"{"x" * 80}..." is no case id; expected'),
        (f"{A}  # skip: ", f"{A} is skipped without a reason; write one after skip:"),
        (B, f"{B} stands on line 2 already; take one of the two out"),
        (f"{B}  # skip: why", f"{B} stands on line 2 already; take one of the two out"),
    ],
)
def test_a_line_that_cannot_be_meant_is_told_with_its_number(tmp_path, line, message):
    path = tmp_path / "expected-cases.txt"
    path.write_text(f"# header\n{B}\n\n{line}\n", "utf-8")
    with pytest.raises(SuiteError) as raised:
        load(path)
    assert str(raised.value).startswith(f"{path}:4: ")
    assert message in str(raised.value)
    if "is no case id" in message:
        assert str(raised.value).endswith("Correct the line, or delete the file and run `mlbench freeze`")


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    pipe, link, words = tmp_path / "pipe", tmp_path / "link", tmp_path / "words"
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "gone")
    words.write_bytes(f"{A}\n{A}\xff\n".encode("latin-1"))
    regular = "is no regular file; take it away and run `mlbench freeze`"
    for path, message in (
        (tmp_path, f"{tmp_path}: {regular}"),
        (pipe, f"{pipe}: {regular}"),
        (link, f"{link}: {regular}"),
        (tmp_path / "gone", f"{tmp_path / 'gone'}: cannot be read: No such file or directory"),
        (words, f"{words}:2: is not UTF-8 text: invalid start byte"),
    ):
        with pytest.raises(SuiteError) as raised:
            load(path)
        assert str(raised.value) == message


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(MlbenchError, match=r"^cannot write .*/gone/e\.txt: No such file or directory$"):
        save(tmp_path / "gone" / "e.txt", {A: None})


# --- freezing ------------------------------------------------------------------------------------------


def test_freezing_the_whole_folder_takes_it_as_it_is():
    assert updated({A: None, C: None}, collected({A: "why", B: None})) == {A: "why", B: None}


def test_freezing_a_part_keeps_the_other_suites_lines():
    assert updated({A: None, C: "why"}, collected({B: None}, suites={"digits"})) == {B: None, C: "why"}


def test_changes_are_listed_by_case():
    old, new = {A: None, B: "why", "x/y[z]": None}, {A: "why", B: None, C: "no"}
    assert changes(old, new) == [
        f"~ {A}  # skip: why",
        f"~ {B}  (no longer skipped)",
        f"+ {C}  # skip: no",
        "- x/y[z]",
    ]
    assert changes(new, new) == []


# --- comparing -----------------------------------------------------------------------------------------


def test_nothing_is_told_of_what_is_as_expected():
    expected = {A: None, B: "why"}
    assert told(expected, collected({A: None, B: "why"}), all_run=True) == []
    assert told(expected, collected({A: None, B: "another reason"})) == []


def test_vanished_and_new_are_told_by_name():
    assert told({A: None, B: "why"}, collected([A, C])) == [f"vanished: {B}", f"new: {C}"]


def test_the_nearest_names_are_paired_and_each_only_once():
    old = ["s/b[aaaa-ort-fp32-cpu]", "s/b[bbbb-ort-fp32-cpu]", "s/b[cccc-ort-fp32-cpu]"]
    new = ["s/b[bbbx-ort-fp32-cpu]", "s/b[aaax-ort-fp32-cpu]"]
    assert told(dict.fromkeys(old), collected(new)) == [
        f"vanished: {old[0]}: renamed to {new[1]}?",
        f"vanished: {old[1]}: renamed to {new[0]}?",
        f"vanished: {old[2]}",
    ]


def test_many_renamed_cases_are_told_without_a_guess():
    """Each compared with each would take minutes, and when a whole axis was renamed it would tell little."""
    old = {f"suite/classify[model_{i}-ort-fp32-cpu]": None for i in range(51)}
    found = told(old, collected([case.replace("classify", "recognise") for case in old]))
    assert len(found) == 102
    assert [line for line in found if "renamed" in line] == []


def test_of_a_part_only_its_suites_count():
    expected = {A: None, B: None, C: None}
    assert told(expected, collected([A], suites={"digits"})) == [f"vanished: {B}"]
    assert told(expected, collected([A], suites=set())) == []
    assert told({}, collected([A], suites=set())) == [f"new: {A}"]


def test_exclusions_are_held_against_the_file():
    found = collected({A: "slow", B: None, C: ""})
    assert told({A: None, B: "why", C: None}, found) == [
        f"newly skipped: {A}: slow",
        f"newly measured: {B}: expected to be skipped: why",
        f"no reason: {C}",
    ]


def test_deselected_cases_count_only_where_all_must_run():
    found = collected({A: None, B: "why", C: None}, deselected={A, B})
    expected = {A: None, B: "why", C: None}
    assert told(expected, found) == []
    assert told(expected, found, all_run=True) == [f"deselected: {A}"]


def test_a_suite_that_could_not_be_collected_hides_which_of_its_cases_vanished():
    found = collected([A], unchecked={"suites/bench_x.toml": "cannot be collected: broken"})
    assert told({A: None, C: None}, found) == ["unchecked: suites/bench_x.toml: cannot be collected: broken"]


def test_what_was_skipped_while_running_is_told():
    expected = {A: None, B: "why", C: None}
    found = collected([A, B, C])
    skips = {A: "tvm is not installed:\n pip install ...", B: "why", C: None}
    assert unmeasured(expected, found, skips, all_ran=True) == [
        Deviation("newly skipped", A, "tvm is not installed: pip install ...")
    ]
    # What the file does not know, and what the suite excludes, is told when collected.
    assert unmeasured({}, found, skips, all_ran=True) == []
    assert unmeasured(expected, collected({A: "excluded"}), {A: "excluded"}, all_ran=True) == []


def test_what_never_ran_is_told_when_the_session_went_to_its_end():
    expected, found = {A: None, B: None, C: None}, collected([A, B, C], deselected={C})
    assert unmeasured(expected, found, {A: None}, all_ran=False) == []
    (one,) = unmeasured(expected, found, {A: None}, all_ran=True)
    assert str(one) == f"never ran: {B}: it was selected, and no outcome was reported"


def test_what_was_collected_survives_its_way_to_another_process():
    found = collected({A: None, B: "why"}, suites={"digits"}, deselected={A}, unchecked={"x": "y"})
    again = Collected.from_text(found.to_text())
    assert (again.cases, set(again.suites), set(again.selected)) == ({A: None, B: "why"}, {"digits"}, {B})
    assert (set(again.deselected), again.unchecked) == ({A}, {"x": "y"})
    assert Collected.from_text(collected([A]).to_text()).suites is None


# --- telling -------------------------------------------------------------------------------------------


def test_each_is_named_and_the_remedies_follow():
    found = [Deviation("vanished", A), Deviation("newly skipped", B, "no tvm"), Deviation("deselected", C)]
    lines = lines_of(found, "suites/e.txt", "suites")
    assert lines[:4] == [
        "mlbench: 3 cases are not as suites/e.txt has them:",
        f"  vanished: {A}",
        f"  newly skipped: {B}: no tvm",
        f"  deselected: {C}",
    ]
    assert [line.split(" ")[0] for line in lines[4:]] == ["newly", "deselected:", "If"]
    assert lines[-1] == "If the change is meant: mlbench freeze suites, and commit suites/e.txt"
    assert lines_of([], "suites/e.txt", "suites") == []


def test_freezing_is_offered_only_where_it_helps():
    for what in ("deselected", "no reason", "never ran", "unchecked"):
        lines = lines_of([Deviation(what, A)], "e.txt", "suites")
        assert lines[0] == "mlbench: 1 case is not as e.txt has them:"
        assert "freeze" not in lines[-1]


def test_what_the_documentation_shows_is_what_is_told():
    docs = Path(__file__).parents[2] / "docs"
    page = (docs / "how-to" / "expected-cases.md").read_text("utf-8")
    shown = page.partition("```text\n")[2].partition("```")[0].splitlines()
    found = []
    for line in shown:
        match = re.fullmatch(r"  ([a-z ]+): (\S+?\])(?:: (.*))?", line)
        found += [Deviation(match[1], match[2], match[3] or "")] if match else []
    assert len(found) == 3
    assert lines_of(found, "suites/expected-cases.txt", "suites") == shown
    words = re.findall(r"^\| ([a-z ]+) \|", page.partition("| word |")[2], re.MULTILINE)
    assert words == list(get_args(What))


def test_the_schema_has_the_same_words():
    items = load_schema()["$defs"]["footer"]["properties"]["deviations"]["items"]
    assert items["properties"]["what"]["enum"] == list(get_args(What))
    assert set(items["required"]) == set(Deviation("new", A).to_json())


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("1", True), ("yes", True), ("", False), ("0", False), ("False", False), (None, False)],
)
def test_continuous_integration_is_told_by_its_variable(value, expected):
    assert in_ci({} if value is None else {"CI": value}) is expected
