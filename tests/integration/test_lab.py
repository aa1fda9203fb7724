"""A lab file in whole sessions: suites find its devices, boards work in parallel, and no board does two things."""

from __future__ import annotations

import itertools
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kernel locks as Linux has them")

LAB = """mlbench = 1
[device.one]
type = "rack"
slot = 1
tags = ["m4"]
[device.two]
type = "rack"
slot = 2
tags = ["m4"]
[device.three]
type = "rack"
slot = 3
meter = "ppk2"
[device.four]
type = "rack"
slot = 4
meter = "ppk2"
[device.gone]
type = "rack"
slot = 5
plugged = false
tags = ["m4", "absent"]
"""


@pytest.fixture
def lab(bed):
    path = bed.root / "lab.toml"
    path.write_text(LAB, encoding="utf-8")
    return path


def frameworks(count):
    return [f'{{ name = "faulty", id = "f{number}", options = {{ call_ms = 2 }} }}' for number in range(count)]


def leases(result):
    """Return (resource, held alone, begin, end) for everything that was held."""
    assert result.run is not None, result.out
    found = []
    for record in result.run.records:
        held = record.lease
        assert held["begin_ns"] < held["end_ns"], record
        for kind in ("resources", "shares"):
            found += [(name, kind == "resources", held["begin_ns"], held["end_ns"]) for name in held[kind]]
    return found


def overlaps(found):
    """Return pairs that held one resource at a time when one of them held it alone."""
    wrong = []
    for one, other in itertools.combinations(found, 2):
        same_time = one[2] < other[3] and other[2] < one[3]
        if one[0] == other[0] and (one[1] or other[1]) and same_time:
            wrong.append((one, other))
    return wrong


def at_once(found, names):
    """Return the largest number of those resources that were held at one time."""
    held = [entry for entry in found if entry[0] in names and entry[1]]
    return max(sum(other[2] <= entry[2] < other[3] for other in held) for entry in held)


# --- parallel -------------------------------------------------------------------------------------------------


def test_boards_work_in_parallel_and_none_does_two_things_at_once(bed, lab):
    bed.suite(*frameworks(4), benchmark='device = ["one", "two", "three", "four", "cpu"]')
    result = bed.run("-n", "4", f"--mlbench-lab={lab}")
    assert result.code == 0, result.out
    assert len(result.run.records) == 20
    found = leases(result)
    assert overlaps(found) == [], "one board, one meter or a timed cpu was used beside another case"
    assert at_once(found, ("one", "two", "three", "four")) >= 2, "different boards never worked at once"
    meter = [entry for entry in found if entry[0] == "ppk2"]
    assert len(meter) == 8, "the meter is held with both boards it serves"
    cpu = [record for record in result.run.records if record.axes["device"] == "cpu"]
    assert all(record.lease["resources"] == ["cpu"] and record.lease["shares"] == [] for record in cpu)


def test_the_proof_finds_an_overlap():
    """What the tests here rely on: two cases on one board at one time are found."""
    assert overlaps([("one", True, 0, 10), ("one", True, 9, 20)])
    assert overlaps([("cpu", True, 0, 10), ("cpu", False, 5, 7)])
    assert not overlaps([("cpu", False, 0, 10), ("cpu", False, 5, 7)])
    assert not overlaps([("one", True, 0, 10), ("one", True, 10, 20), ("two", True, 0, 20)])


# --- any board with a tag ---------------------------------------------------------------------------------------


def test_any_board_with_a_tag_is_one_case_and_the_record_names_the_board(bed, lab):
    bed.suite(*frameworks(6), benchmark='device = ["any.m4"]')
    result = bed.run("-n", "2", f"--mlbench-lab={lab}")
    assert result.code == 0, result.out
    records = result.run.records
    assert [record.case for record in records] == [f"faults/run[net-f{number}-fp32-any.m4]" for number in range(6)]
    assert {record.target["device"] for record in records} == {"one", "two"}, "both free boards are used"
    assert all(record.lease["device"] == record.target["device"] for record in records)
    assert {record.axes["device"] for record in records} == {"any.m4"}
    assert overlaps(leases(result)) == []


def test_when_no_board_with_the_tag_can_be_used_the_case_says_why(bed, lab):
    bed.suite(benchmark='device = ["any.absent"]')
    result = bed.run(f"--mlbench-lab={lab}")
    record = result.records["faulty"]
    assert (record.outcome, record.stage) == ("error", "lease")
    assert "none of 1 devices can be used: gone: there is no board in slot 5; plug one in" in record.reason
    assert result.code == 12


# --- two sessions -----------------------------------------------------------------------------------------------


def test_two_sessions_race_for_one_board(bed, lab):
    bed.suite(*frameworks(3), benchmark='device = ["one"]')
    one = bed.start(f"--mlbench-lab={lab}", output=bed.project / "one.jsonl")
    other = bed.start(f"--mlbench-lab={lab}", output=bed.project / "other.jsonl")
    results = [one.wait(), other.wait()]
    assert [result.code for result in results] == [0, 0], results
    found = [entry for result in results for entry in leases(result)]
    assert len([entry for entry in found if entry[0] == "one"]) == 6
    assert overlaps(found) == []


def test_a_board_that_is_busy_past_the_deadline_names_holder_and_case(bed, lab):
    bed.held.touch()
    bed.suite(
        '{ name = "faulty", id = "held", options = { fault = "hold", stage = "measure" } }',
        benchmark='device = ["one"]',
    )
    holder = bed.start(f"--mlbench-lab={lab}", output=bed.project / "one.jsonl")
    bed.wait_for_event("hold")
    bed.suite(name="others", benchmark='device = ["one"]')
    options = (f"--mlbench-lab={lab}", "--mlbench-lease-timeout=0.3")
    result = bed.run("suites/others", *options, output=bed.project / "other.jsonl")
    record = result.records["faulty"]
    assert (record.outcome, record.stage) == ("error", "lease")
    assert record.reason.startswith(f"lease: device 'one' is busy: held by process {holder.pid} since 20")
    assert ", case faults/run[net-held-fp32-one]; wait for it, end it" in record.reason
    assert record.lease == {}
    bed.held.unlink()
    assert holder.wait().code == 0


# --- wrong use --------------------------------------------------------------------------------------------------


def test_a_suite_that_names_a_lab_device_without_a_lab_file_says_what_is_missing(bed):
    bed.suite(benchmark='device = ["one"]')
    result = bed.run()
    assert result.code == 2
    assert 'benchmark[0].device[0]: unknown device "one".' in result.text
    assert "--mlbench-lab FILE, or MLBENCH_LAB" in result.text


def test_the_lab_file_may_come_by_the_environment_and_the_option_wins(bed, lab):
    bed.suite(benchmark='device = ["one"]')
    assert bed.run(MLBENCH_LAB=str(lab)).code == 0
    assert bed.run("--mlbench-lab=", MLBENCH_LAB=str(lab)).code == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "--mlbench-lab: {lab}: cannot be read: No such file or directory"),
        ("mlbench = 1\n[device.one\n", "--mlbench-lab: {lab}: malformed TOML: "),
        (LAB.replace("slot = 2", "slot = 1"), '--mlbench-lab: {lab}: device.two.slot: is also that of device "one": 1'),
    ],
)
def test_a_wrong_lab_file_ends_the_session_before_anything_is_measured(bed, lab, text, message):
    lab.unlink()
    if text is not None:
        lab.write_text(text, encoding="utf-8")
    bed.suite()
    result = bed.run(f"--mlbench-lab={lab}")
    assert result.code == 4
    assert "ERROR: " + message.format(lab=lab) in result.text
    assert result.run is None
    assert bed.count("load") == 0


def test_the_base_is_collected_with_the_same_lab(repository):
    lab = repository.root / "lab.toml"
    lab.write_text(LAB, encoding="utf-8")
    repository.suite(benchmark='device = ["one"]')
    repository.commit()
    result = repository.compare(f"--mlbench-lab={lab}", repository.NO_ROUNDS)
    record = result.records["faulty"]
    assert record.base["commit"], result.out
    assert "new" not in record.base, "the base's case was found"
    assert record.comparisons
    assert not [one.reason for one in record.comparisons if "cannot be read" in one.reason]
