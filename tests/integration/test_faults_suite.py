"""A suite that is wrong is refused while collecting, with file, key, what was expected and the remedy.

One run holds all of these suites: each error names its own file, and no suite hides another's.
"""

from __future__ import annotations

import re

import pytest

# suite -> what is replaced in a sound suite, by what, and what the message says
FAULTS = {
    "malformed": ("[[model]]", "[[model]", r"malformed TOML: .*line 2"),
    "unknown_key": (
        'dataset = "data"',
        'datset = "data"',
        r'benchmark\[0\]\.datset: unknown key; did you mean "dataset"\?',
    ),
    "unknown_framework": (
        '["faulty"]',
        '["faultty"]',
        r'benchmark\[0\]\.framework\[0\]: unknown framework "faultty"; did you mean "faulty"\? '
        r"Known frameworks: .*onnxruntime",
    ),
    "unknown_precision": (
        '["fp32"]',
        '["fp23"]',
        r'benchmark\[0\]\.precision\[0\]: unknown precision "fp23"; did you mean "fp32"\? Known precisions: .*int8',
    ),
    "unknown_device": (
        "precision = [",
        'device = ["cpx"]\nprecision = [',
        r'benchmark\[0\]\.device\[0\]: unknown device "cpx"; did you mean "cpu"\? Known devices: (\w.*, )?cpu',
    ),
    "unknown_choice": (
        '["faulty"]',
        '[{ name = "faulty", options = { fault = "segfalt" } }]',
        r'options\.fault: unknown choice "segfalt"; did you mean "segfault"\?',
    ),
    "unknown_option": (
        '["faulty"]',
        '[{ name = "faulty", options = { falt = "none" } }]',
        r'options\.falt: unknown option of faulty "falt"; did you mean "fault"\?',
    ),
    "leaves_folder": (
        "model.json",
        "../../model.json",
        r'model\[0\]\.files\.faulty\.fp32: "\.\./\.\./model\.json" is outside the folder of the suite, \S+, '
        r"which files may not leave; copy it in",
    ),
    "no_benchmark": ("[[benchmark]]", "[[benchmark_]]", r'benchmark_: unknown key; did you mean "benchmark"\?'),
    "no_precision_file": ('["fp32"]', '["int8"]', r"has no int8 for faulty \(it has fp32\)\. Add files\.faulty\.int8"),
}


@pytest.fixture(scope="module")
def collected(make_bed):
    bed = make_bed()
    for name, (old, new, _) in FAULTS.items():
        path = bed.suite(name=name)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    latin = bed.suite(name="latin")
    latin.write_bytes(b"# caf\xe9\n" + latin.read_bytes())
    twin = bed.suite(name="twin_b")
    twin.write_text('name = "twin_a"\n' + twin.read_text())
    bed.suite(name="twin_a")
    return bed.run()


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_suite_is_refused_with_its_place_and_the_remedy(collected, name):
    told = re.search(rf"^\S*bench_{name}\.toml: .*", collected.out, re.MULTILINE)
    assert told
    assert re.search(FAULTS[name][2], told[0])


def test_a_suite_that_is_no_text_is_refused(collected):
    assert re.search(r"bench_latin\.toml: is not UTF-8 text: .* \(at line 1\)", collected.text), collected.out


def test_two_suites_of_one_name_are_refused_and_both_files_are_named(collected):
    wanted = r'bench_twin_b\.toml: suite "twin_a" is also \S+bench_twin_a\.toml; give one of them another `name`'
    assert re.search(wanted, collected.text), collected.out


def test_nothing_is_measured_when_a_suite_is_wrong(collected):
    assert collected.code == pytest.ExitCode.INTERRUPTED
    assert f"{len(FAULTS) + 2} errors during collection" in collected.out
    assert collected.run.records == ()
    assert "Traceback" not in collected.out
    assert "pytest_mlbench/" not in collected.out, "a message for people, and no traceback of ours"
