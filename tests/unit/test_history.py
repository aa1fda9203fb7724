"""The verbs `mlbench import` and `mlbench history`."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from pytest_mlbench import history, importers
from pytest_mlbench.cli import main
from pytest_mlbench.record import Metric, Record
from pytest_mlbench.stores import runfile

BEGIN = datetime(2026, 1, 31, 12, 0, tzinfo=timezone.utc)
FP32, INT8 = "digits/classify[cnn-ort-fp32-cpu]", "digits/classify[cnn-ort-int8-cpu]"
NOISE = (0, 13, -9, 7, 22, -15, 10, -2)


@pytest.fixture
def folder(tmp_path, monkeypatch, require):
    require("sqlalchemy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLBENCH_HISTORY", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def verb(capsys):
    """Run a verb; return its exit code and what it printed on both streams."""

    def run(*arguments):
        code = main([str(word) for word in arguments])
        printed = capsys.readouterr()
        return code, printed.out.splitlines(), printed.err

    return run


def write_run(folder, number, p50=2100.0, cases=(FP32, INT8)):
    """Write the run file of hour `number`, as a session does."""
    path = folder / f"run{number}.jsonl"
    started = (BEGIN + timedelta(hours=number)).isoformat()
    source = {"commit": f"{number:040x}", "branch": "main", "dirty": False}
    runfile.begin(path, {"id": f"run-{number}", "started": started, "source": source, "host": {"node": "lab"}})
    journal = runfile.Journal(path, "main")
    for case in cases:
        metrics = (Metric("latency.p50", p50, "ns", "lower"), Metric("throughput", 1e9 / p50, "1/s", "higher"))
        journal.append(Record(case, "node", {}, "pass", metrics=metrics, fingerprint="0123456789abcdef"))
    runfile.finish(path, {"exitstatus": 0})
    return path.relative_to(folder)


# --- import -------------------------------------------------------------------------------------------------


def test_import_makes_the_history_in_the_current_folder_and_says_what_became_of_each_file(folder, verb):
    one, two = write_run(folder, 1), write_run(folder, 2, cases=(FP32,))
    assert verb("import", one, two) == (
        0,
        [
            "run1.jsonl: run run-1 kept, 2 records",
            "run2.jsonl: run run-2 kept, 1 record",
            "history: sqlite:///.mlbench/history.db",
        ],
        "",
    )
    assert (folder / ".mlbench" / "history.db").is_file()
    assert verb("import", two)[1][0] == "run2.jsonl: run run-2 was there before"


def test_the_history_is_where_the_environment_says_unless_an_option_does(folder, verb, monkeypatch):
    path = write_run(folder, 1)
    monkeypatch.setenv("MLBENCH_HISTORY", "sqlite:///team.db")
    assert verb("import", path)[1][-1] == "history: sqlite:///team.db"
    assert verb("import", path, "--db", "sqlite:///own.db")[1][-1] == "history: sqlite:///own.db"
    assert {file.name for file in folder.glob("*.db")} == {"team.db", "own.db"}
    assert verb("history", FP32)[1][0] == FP32
    assert not (folder / ".mlbench").exists()


def test_the_hash_of_the_file_is_kept_beside_the_run(folder, verb):
    import hashlib
    import sqlite3

    path = write_run(folder, 1)
    verb("import", path, "--db", "sqlite:///h.db")
    with sqlite3.connect("h.db") as connection:
        kept = connection.execute("SELECT file_sha256 FROM mlbench_runs").fetchall()
    connection.close()
    assert kept == [(hashlib.sha256(path.read_bytes()).hexdigest(),)]


def test_a_bad_file_is_told_with_its_name_and_the_others_are_kept(folder, verb):
    (folder / "bad.jsonl").write_text('{"kind": "header", "schema": 1, "id": "x", "started": "soon"}\n')
    code, out, err = verb("import", "bad.jsonl", write_run(folder, 1), "gone.jsonl")
    assert code == 2
    assert out == ["run1.jsonl: run run-1 kept, 2 records", "history: sqlite:///.mlbench/history.db"]
    first, second = err.splitlines()
    assert first.startswith("mlbench: bad.jsonl: the header of the run: started: expected a time like")
    assert second.startswith("mlbench: cannot read gone.jsonl: ")


def test_other_tools_results_are_kept_too(folder, verb):
    pytest.importorskip("pytest_benchmark")
    (folder / "test_it.py").write_text("def test_sum(benchmark):\n    benchmark(sum, range(100))\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--rootdir=.",
        "--benchmark-max-time=0.05",
    ]
    subprocess.run([*command, "--benchmark-json=them.json"], cwd=folder, check=True, capture_output=True, timeout=120)
    assert verb("import", "them.json")[:1] == (0,)
    code, out, _ = verb("history", "*", "--metric", "latency.mean")
    assert (code, out[0].partition("/")[0]) == (0, "imported")
    code, _, err = verb("import", "them.json", "--format", "pyperf")
    assert (code, err) == (2, "mlbench: them.json is a file of pytest-benchmark, not of pyperf\n")


def test_the_formats_of_the_help_are_those_that_are_read():
    assert history._FORMATS == importers.FORMATS


# --- history ------------------------------------------------------------------------------------------------


def test_cases_by_runs(folder, verb):
    verb("import", write_run(folder, 1), write_run(folder, 2, 2310.0, cases=(FP32,)))
    assert verb("history") == (
        0,
        [
            "latency.p50, run begun (UTC)       01-31 13:00  01-31 14:00",
            "---------------------------------  -----------  -----------",
            "commit                                 0000000      0000000",
            f"{FP32}      2.10 us      2.31 us",
            f"{INT8}      2.10 us",
        ],
        "",
    )
    assert verb("history", "--metric", "throughput")[1][3].split()[1:] == ["476", "k/s", "433", "k/s"]
    assert verb("history", "digits/*", "--limit", 1)[1][0] == FP32, "one case is left, and its trend is shown"
    verb("import", write_run(folder, 3, 2200.0))
    assert verb("history", "digits/*", "--limit", 1)[1][0].endswith("(UTC)       01-31 15:00")


def test_the_width_of_the_terminal_bounds_the_table(folder, verb, monkeypatch):
    verb("import", *(write_run(folder, number) for number in range(6)))
    monkeypatch.setenv("COLUMNS", "70")
    assert verb("history")[1][-1] == "4 earlier runs left out: wider with COLUMNS=140, all of them with --format json"


def test_the_trend_of_one_case_shows_where_it_stepped(folder, verb):
    levels = [*(2100.0 + noise for noise in NOISE), *(2300.0 + noise for noise in NOISE)]
    verb("import", *(write_run(folder, number, p50) for number, p50 in enumerate(levels)))
    code, out, _ = verb("history", FP32)
    assert (code, out[0]) == (0, FP32)
    (step,) = [line for line in out if "step:" in line]
    assert step.startswith("2026-01-31 20:00:00  0000000  main    pass         2.30 us  step: +9.5")
    assert step.endswith("worse (p = 0.005)")
    assert "newest baseline" in out[19]
    assert out[-1] == "a step is found once runs of the new level are there: read it, do not gate on it"


def test_a_step_never_makes_the_command_fail(folder, verb):
    levels = [*(2100.0 + noise for noise in NOISE), *(9300.0 + noise for noise in NOISE)]
    verb("import", *(write_run(folder, number, p50) for number, p50 in enumerate(levels)))
    code, out, _ = verb("history", FP32)
    assert "step: " in "\n".join(out)
    assert code == 0


def test_json_is_one_document(folder, verb):
    verb("import", write_run(folder, 1), write_run(folder, 2, cases=(FP32,)))
    code, (line,), _ = verb("history", "--format", "json", "--metric", "throughput")
    told = json.loads(line)
    assert code == 0
    assert (told["history"], told["metric"]) == ("sqlite:///.mlbench/history.db", "throughput")
    assert [(one["case"], len(one["points"])) for one in told["series"]] == [(FP32, 2), (INT8, 1)]
    assert told["series"][0]["points"][0]["metric"]["unit"] == "1/s"


def test_without_a_history_it_says_how_to_make_one(folder, verb):
    told = "mlbench: there is no history at .mlbench/history.db: import a run first, mlbench import RUN_FILE\n"
    assert verb("history") == (2, [], told)
    assert list(folder.iterdir()) == []


def test_an_unknown_case_or_metric_is_an_error_with_a_near_match(folder, verb):
    verb("import", write_run(folder, 1))
    code, out, err = verb("history", FP32.replace("digits", "digit"))
    assert (code, out) == (2, [])
    assert f'did you mean "{FP32}"?' in err
    code, out, err = verb("history", "--metric", "trhoughput")
    assert (code, out) == (2, [])
    assert err.startswith('mlbench: the history sqlite:///.mlbench/history.db: unknown metric "trhoughput"; did you')


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "1.5", "²", ""])
def test_a_limit_is_a_whole_number(verb, capsys, limit):
    with pytest.raises(SystemExit) as caught:
        verb("history", f"--limit={limit}")
    assert caught.value.code == 2
    told = f"argument --limit: expected a whole number from 1 to 1000, found {limit!r}"
    assert told in capsys.readouterr().err


def test_other_verbs_do_not_pay_for_the_history():
    code = "import argparse, sys\nfrom pytest_mlbench import history\n"
    code += (
        "verbs = argparse.ArgumentParser().add_subparsers()\nhistory.add_import(verbs)\nhistory.add_history(verbs)\n"
    )
    code += "print(sorted({'sqlalchemy', 'psycopg', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
