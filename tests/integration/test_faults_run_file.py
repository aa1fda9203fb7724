"""A run file that cannot be written: told with its name and the remedy, and nothing that was written is lost."""

from __future__ import annotations

import os
import subprocess

import pytest

from pytest_mlbench.stores import runfile

ONE, TWO = '{ name = "faulty", id = "one" }', '{ name = "faulty", id = "two" }'

# After the first record the file size limit is a little above what the journal takes: the next line is cut off,
# as on a disk that fills up while it is written.
LIMIT = """
import resource
from pathlib import Path

def pytest_mlbench_record(config, record):
    size = Path("run.jsonl.parts/main.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 500, resource.RLIM_INFINITY))
"""
# After the first record the file system is filled.
FILL = """
from pathlib import Path

def pytest_mlbench_record(config, record):
    with Path("small/ballast").open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(512))
        except OSError:
            pass
"""


def test_a_full_disk_is_told_with_the_file_and_the_remedy(bed):
    bed.suite(ONE, TWO)
    parts = runfile.parts_dir(bed.run_file)
    parts.mkdir()
    (parts / "main.jsonl").symlink_to("/dev/full")
    result = bed.run()
    message = (
        f"cannot write {parts}/main.jsonl: No space left on device; free space there or choose another place with "
        "--mlbench-output. Records already written are kept"
    )
    assert f"error(record): faults/run[net-one-fp32-cpu]: {message}" in result.text
    assert f"error(record): faults/run[net-two-fp32-cpu]: {message}" in result.text, "the run went on"
    assert f"mlbench: {message}" in result.text
    assert result.code == 12
    assert result.run.records == ()


def test_a_disk_that_fills_up_keeps_the_earlier_records(bed):
    bed.suite(ONE, TWO)
    (bed.project / "conftest.py").write_text(LIMIT)
    result = bed.run()
    parts = runfile.parts_dir(bed.run_file)
    told = f"error(record): faults/run[net-two-fp32-cpu]: cannot write {parts}/main.jsonl: File too large"
    assert told in result.text
    assert result.code == 12
    assert {key: record.outcome for key, record in result.records.items()} == {"one": "pass"}
    assert (parts / "main.jsonl").read_text().endswith("}\n"), "no half of a line is left"
    assert not bed.run_file.with_name("run.jsonl.part").exists()
    assert "1 case: 1 pass" in result.out
    (bed.project / "conftest.py").unlink()
    again = bed.run("--mlbench-resume=run.jsonl")
    assert again.records["one"].resumed
    assert again.records["two"].outcome == "pass"
    assert again.code == 0


def test_a_small_disk_keeps_the_earlier_records(bed):
    small = bed.project / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "mlbench-test", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    try:
        bed.suite(ONE, TWO)
        (bed.project / "conftest.py").write_text(FILL)
        result = bed.run(output=small / "run.jsonl")
        assert "run.jsonl.parts/main.jsonl: No space left on device; free space there or choose" in result.text
        assert result.code == 12
        assert {key: record.outcome for key, record in result.records.items()} == {"one": "pass"}
        (small / "ballast").unlink()
        (bed.project / "conftest.py").unlink()
        again = bed.run(f"--mlbench-resume={small / 'run.jsonl'}", "--rootdir=.", output=bed.project / "again.jsonl")
        assert again.records["one"].resumed, again.out
        assert again.code == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_journals_removed_during_the_run_are_told(bed):
    bed.suite(ONE, TWO)
    (bed.project / "conftest.py").write_text(
        "import shutil\ndef pytest_mlbench_record(config, record):\n    shutil.rmtree('run.jsonl.parts', True)\n"
    )
    result = bed.run()
    assert "error(record): faults/run[net-two-fp32-cpu]: cannot write " in result.text
    assert "run.jsonl.parts/main.jsonl: No such file or directory; free space there or choose" in result.text
    assert result.code == 12
    assert result.run is None


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file/run.jsonl", "cannot write {project}/file/run.jsonl.parts: "),
        ("suites", "cannot write {project}/suites: it is a folder; name a file with --mlbench-output"),
        ("/proc/mlbench/run.jsonl", "cannot write /proc/mlbench/run.jsonl.parts: No such file or directory; free"),
    ],
)
def test_an_output_that_cannot_be_written_is_a_usage_error_before_anything_is_measured(bed, output, message):
    bed.suite()
    (bed.project / "file").write_text("")
    result = bed.run(output=bed.project / output)
    assert result.code == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {message.format(project=bed.project)}" in result.text
    assert bed.events() == []


def test_an_output_folder_is_made(bed):
    bed.suite()
    result = bed.run(output=bed.project / "out" / "of" / "ci" / "run.jsonl")
    assert result.code == 0
    assert result.records["faulty"].outcome == "pass"


@pytest.mark.parametrize("variable", ["MLBENCH_CACHE", "MLBENCH_STATE"])
def test_a_folder_of_ours_that_cannot_be_written_is_an_error_of_the_case(bed, variable):
    bed.suite()
    result = bed.run(**{variable: "/proc/mlbench"})
    record = result.records["faulty"]
    assert (record.outcome, record.stage) == ("error", "files")
    assert record.reason.startswith("files: [Errno 2] No such file or directory: '/proc/mlbench")
    assert "or choose another one: MLBENCH_CACHE for made files, MLBENCH_STATE for locks" in record.reason
    assert f"error(files): {record.case}: [Errno 2]" in result.out
    assert "Traceback" not in result.out
    assert result.code == 12
