"""The history when things go wrong: a message, exit code 2, and a store that is as it was before."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_mlbench.cli import main
from pytest_mlbench.record import Metric, Record
from pytest_mlbench.stores import runfile
from pytest_mlbench.stores.url import open_store

CASE = "s/b[c-ort-fp32-cpu]"
# Import as `mlbench import` does, and stand still for some seconds before a statement that begins like that.
STAND_STILL = """
import sys, time
import sqlalchemy
from pytest_mlbench.cli import main

begin, seconds, path, url = sys.argv[1:]

@sqlalchemy.event.listens_for(sqlalchemy.Engine, "before_cursor_execute")
def before(connection, cursor, statement, *rest):
    if statement.startswith(begin):
        print("in the middle", flush=True)
        time.sleep(float(seconds))

sys.exit(main(["import", path, "--db", url]))
"""
METRICS = "INSERT INTO mlbench_metrics"
TABLES, INDEX = "CREATE TABLE mlbench_runs", "CREATE INDEX mlbench_records_series"


def write_run(folder, number, records=3, metrics=2, reason=""):
    """Write a run file as a session does."""
    path = folder / f"run{number}.jsonl"
    runfile.begin(path, {"id": f"run-{number}", "started": f"2026-01-{number % 28 + 1:02d}T12:00:00+00:00"})
    journal = runfile.Journal(path, "main")
    for place in range(records):
        case = CASE if place == 0 else CASE.replace("c", f"c{place}", 1)
        found = tuple(Metric(f"latency.p{50 + i}", 1000.0 * number + i, "ns", "lower") for i in range(metrics))
        journal.append(Record(case, "node", {}, "pass", reason, metrics=found, fingerprint="f"))
    runfile.finish(path, {"exitstatus": 0})
    return path


def mlbench(*arguments, timeout=120, **more):
    command = [sys.executable, "-m", "pytest_mlbench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **more)


def refused(*arguments, **more):
    """Run a verb that must fail, and return its message."""
    done = mlbench(*arguments, **more)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("mlbench: ")
    assert "Traceback" not in done.stderr
    return done.stderr.strip()


@pytest.fixture
def verb(capsys):
    """Run a verb in this process: quicker, where what is tested is not a process's end."""

    def run(*arguments):
        code = main([str(word) for word in arguments])
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, printed.out, printed.err)

    return run


def file_of(url):
    return Path(url.removeprefix("sqlite:///"))


def content(url):
    """Return everything that is kept: runs, records, metrics."""
    store = open_store(url, create=False, wait_s=10)
    try:
        runs = store.runs(limit=1000)
        series = store.series(store.cases(runs), "latency.p50", limit=1000) if runs else {}
        return {run.id for run in runs}, {key: [(p.run.id, p.metric.value) for p in ps] for key, ps in series.items()}
    finally:
        store.close()


@pytest.fixture
def filled(history_url, verb, tmp_path):
    """A history with one run."""
    assert verb("import", write_run(tmp_path, 1), "--db", history_url).returncode == 0
    return history_url


@contextlib.contextmanager
def small_disk(folder, size, owner=None):
    """Mount a small file system; needs root."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "mlbench-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


# --- many at once -------------------------------------------------------------------------------------------


def test_eight_importers_at_once_lose_nothing_and_keep_nothing_twice(history_url, tmp_path):
    own = [[write_run(tmp_path, 10 * importer + i) for i in range(1, 6)] for importer in range(8)]
    shared = [write_run(tmp_path, number) for number in (201, 202, 203)]
    command = [sys.executable, "-m", "pytest_mlbench", "import", "--db", history_url]
    # None of them finds a schema there: that is made by eight at once, too.
    importers = [
        subprocess.Popen([*command, *map(str, [*shared, *files])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for files in own
    ]
    try:
        printed = [importer.communicate(timeout=300)[0].decode() for importer in importers]
    finally:
        for importer in importers:
            importer.kill()
            importer.wait()
    assert [importer.returncode for importer in importers] == [0] * 8, "\n".join(printed)
    for number in (201, 202, 203):
        told = [line for text in printed for line in text.splitlines() if f"run-{number} " in line]
        assert sum("kept, 3 records" in line for line in told) == 1
        assert sum("was there before" in line for line in told) == 7
    numbers = [10 * importer + i for importer in range(8) for i in range(1, 6)] + [201, 202, 203]
    runs, series = content(history_url)
    assert runs == {f"run-{number}" for number in numbers}
    assert len(series) == 3
    for points in series.values():
        assert sorted(points) == sorted((f"run-{number}", 1000.0 * number) for number in numbers)


@contextlib.contextmanager
def standing_still(path, url, *, seconds, before=METRICS):
    """An import that has begun to write and goes on after some seconds; ended when the test does not wait for it."""
    command = [sys.executable, "-c", STAND_STILL, before, str(seconds), str(path), url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "in the middle\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_killed_in_the_middle_of_an_import_nothing_of_the_run_is_there(filled, tmp_path):
    path = write_run(tmp_path, 2, records=50)
    before = content(filled)
    with standing_still(path, filled, seconds=60):
        assert content(filled) == before, "a reader sees nothing of it, and does not wait"
    assert content(filled) == before
    done = mlbench("import", path, "--db", filled)
    assert done.stdout.splitlines()[0] == f"{path}: run run-2 kept, 50 records"


@pytest.mark.parametrize("before", [TABLES, INDEX], ids=["tables", "index"])
def test_killed_while_the_tables_are_made_the_next_import_makes_them(history_url, tmp_path, before):
    path = write_run(tmp_path, 1)
    with standing_still(path, history_url, seconds=60, before=before):
        pass
    done = mlbench("import", path, "--db", history_url)
    assert done.stdout.splitlines()[0] == f"{path}: run run-1 kept, 3 records", done.stderr


def test_an_import_waits_for_another_and_then_succeeds(filled, tmp_path):
    first, second = write_run(tmp_path, 2), write_run(tmp_path, 3)
    with standing_still(first, filled, seconds=1) as process:
        assert mlbench("import", second, "--db", filled).returncode == 0
        assert process.wait(60) == 0
    assert content(filled)[0] == {"run-1", "run-2", "run-3"}


def test_two_imports_of_one_run_at_the_same_time_keep_it_once(filled, tmp_path):
    path = write_run(tmp_path, 2)
    with standing_still(path, filled, seconds=1) as process:
        done = mlbench("import", path, "--db", filled)
        assert done.stdout.splitlines()[0] == f"{path}: run run-2 was there before", done.stderr
        assert process.wait(60) == 0
    assert len(content(filled)[1]) == 3
    assert {len(points) for points in content(filled)[1].values()} == {2}


@pytest.mark.parametrize("before", [TABLES, INDEX], ids=["tables", "index"])
def test_two_first_imports_at_the_same_time_make_the_tables_once(history_url, tmp_path, before):
    first, second = write_run(tmp_path, 1), write_run(tmp_path, 2)
    with standing_still(first, history_url, seconds=1, before=before) as process:
        done = mlbench("import", second, "--db", history_url)
        assert done.returncode == 0, done.stderr
        assert process.wait(60) == 0
    assert content(history_url)[0] == {"run-1", "run-2"}


# --- SQLite -------------------------------------------------------------------------------------------------


@pytest.fixture
def sqlite_url(tmp_path, require):
    require("sqlalchemy")
    url = f"sqlite:///{tmp_path / 'history.db'}"
    assert mlbench("import", write_run(tmp_path, 1), "--db", url).returncode == 0
    return url


def short_wait(*arguments):
    """Run a verb with a wait of 1 s for locks instead of 30."""
    code = "import sys\nfrom pytest_mlbench.stores import url\nfrom pytest_mlbench.cli import main\n"
    code += "url.open_store.__kwdefaults__['wait_s'] = 1.0\nsys.exit(main(sys.argv[1:]))\n"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_file_that_stays_locked_is_told(sqlite_url, tmp_path):
    before = content(sqlite_url)
    holder = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        done = short_wait("import", write_run(tmp_path, 2), "--db", sqlite_url)
        assert done.returncode == 2
        assert done.stderr == (
            f"mlbench: the history {sqlite_url}: it is locked by another process: database is locked; end what holds "
            "it, or try again\n"
        )
        assert short_wait("history", "--db", sqlite_url).returncode == 0, "readers go on"
    finally:
        holder.close()
    assert content(sqlite_url) == before


@pytest.mark.parametrize("text", [b"no database\n" * 100, b"PK\x03\x04" + bytes(5000)])
@pytest.mark.parametrize("verb", ["import", "history"])
def test_a_file_that_is_something_else_is_told_and_left_alone(tmp_path, text, verb):
    path = tmp_path / "other.db"
    path.write_bytes(text)
    given = [write_run(tmp_path, 1)] if verb == "import" else []
    told = refused(verb, *given, "--db", f"sqlite:///{path}")
    assert told == (
        f"mlbench: the history sqlite:///{path}: the file is something else: file is not a database; name another file"
    )
    assert path.read_bytes() == text


def test_a_damaged_file_is_told(sqlite_url, tmp_path):
    path = file_of(sqlite_url)
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 4096] = b"\xff" * 4096
    path.write_bytes(data)
    told = refused("import", write_run(tmp_path, 2), "--db", sqlite_url)
    assert "the file is damaged: database disk image is malformed; restore a copy, or move it away and import" in told


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    told = refused("import", write_run(tmp_path, 1), "--db", f"sqlite:///{tmp_path / 'file' / 'history.db'}")
    assert told == (
        f"mlbench: the history cannot be kept in {tmp_path / 'file'}: File exists; name another place with --db"
    )
    told = refused("import", write_run(tmp_path, 2), "--db", f"sqlite:///{tmp_path}")
    assert "the file cannot be opened: unable to open database file; make the folder writable, or name another" in told


@pytest.fixture
def bound_by_permissions():
    """Return the words before a command that hold root, too, to the permissions of files."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everything, and setpriv, which takes that right away, is not installed")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def test_a_file_that_may_not_be_written_is_told_and_can_still_be_read(sqlite_url, tmp_path, bound_by_permissions):
    folder = tmp_path / "shelf"
    folder.mkdir()
    url = f"sqlite:///{shutil.copyfile(file_of(sqlite_url), folder / 'history.db')}"
    file_of(url).chmod(0o444)
    folder.chmod(0o555)
    run = write_run(tmp_path, 2)
    command = [*bound_by_permissions, sys.executable, "-m", "pytest_mlbench"]
    done = subprocess.run(
        [*command, "import", run, "--db", url], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"mlbench: the history {url}: it is read-only: attempt to write a readonly database; make the file and its "
        "folder writable, or name another file\n"
    )
    shown = subprocess.run(
        [*command, "history", CASE, "--db", url], capture_output=True, text=True, timeout=60, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "1.00 us" in shown.stdout
    folder.chmod(0o755)


def test_a_full_disk_is_told_and_nothing_of_the_run_is_kept(tmp_path):
    with small_disk(tmp_path / "small", "512k") as folder:
        url = f"sqlite:///{folder / 'history.db'}"
        assert mlbench("import", write_run(tmp_path, 1), "--db", url).returncode == 0
        told = refused("import", write_run(tmp_path, 2, records=50, reason="x" * 50_000), "--db", url)
        assert told == (
            f"mlbench: the history {url}: the disk is full; nothing of this run was kept: database or disk is full; "
            "free space there"
        )
        assert content(url)[0] == {"run-1"}
        assert mlbench("import", write_run(tmp_path, 3), "--db", url).returncode == 0


def test_a_file_that_may_not_grow_is_told_and_nothing_of_the_run_is_kept(sqlite_url, tmp_path):
    code = "import resource, sys\nfrom pytest_mlbench.cli import main\n"
    code += (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\nsys.exit(main(sys.argv[1:]))\n"
    )
    given = ["import", str(write_run(tmp_path, 2, records=50, reason="x" * 50_000)), "--db", sqlite_url]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "the disk failed or is full; nothing of this run was kept: disk I/O error; free space there" in done.stderr
    assert content(sqlite_url)[0] == {"run-1"}


# --- PostgreSQL ---------------------------------------------------------------------------------------------


@pytest.fixture
def server_url(postgres_database, tmp_path):
    assert mlbench("import", write_run(tmp_path, 1), "--db", postgres_database).returncode == 0
    return postgres_database


def administer(url, *statements):
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def database_of(url):
    return url.partition("?")[0].rpartition("/")[2]


def test_a_server_that_is_down_is_told(tmp_path):
    for verb in (["import", write_run(tmp_path, 1)], ["history"]):
        told = refused(*verb, "--db", "postgresql://me:s3cret@127.0.0.1:9/name")
        assert told.startswith("mlbench: the history postgresql://me:***@127.0.0.1:9/name: it cannot be reached: ")
        assert told.endswith("; see that the server runs and that the URL names it")
        assert "Connection refused" in told
        assert "s3cret" not in told


def test_a_database_that_is_not_there_is_told(server_url):
    url = server_url.replace(database_of(server_url), "not_there")
    told = refused("history", "--db", url)
    assert ": there is no such database: connection failed: " in told
    assert told.endswith('FATAL: database "not_there" does not exist; create it: createdb NAME')


def test_a_user_the_server_does_not_know_is_told(server_url):
    told = refused("history", "--db", server_url.replace("//mlbench@", "//nobody@"))
    assert ": the server does not know the user: connection failed: " in told
    assert told.endswith(
        'FATAL: role "nobody" does not exist; name another one in the URL, or create it: createuser NAME'
    )


def test_a_wrong_password_is_told_and_not_shown(server_url):
    import psycopg

    if os.environ.get("MLBENCH_TEST_POSTGRES"):
        pytest.skip("the server's rules are not ours to change")
    user = f"member_{os.getpid()}"
    administer(server_url, f"CREATE ROLE {user} LOGIN PASSWORD 'right'")
    with psycopg.connect(server_url, autocommit=True) as connection:
        rules = Path(connection.execute("SHOW hba_file").fetchone()[0])
        before = rules.read_text()
        rules.write_text(f"local all {user} scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        try:
            for password, message in (
                (":s3cret", "the server refused the user: connection failed: "),
                ("", "the server wants a password: connection failed: "),
            ):
                told = refused("history", "--db", server_url.replace("//mlbench@", f"//{user}{password}@"))
                assert message in told
                assert "PGPASSWORD or ~/.pgpass" in told
                assert "s3cret" not in told
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"DROP ROLE {user}")


def test_a_server_that_stays_locked_is_told(server_url, tmp_path):
    import psycopg

    before = content(server_url)
    with psycopg.connect(server_url) as holder:
        holder.execute("LOCK TABLE mlbench_runs IN EXCLUSIVE MODE")
        done = short_wait("import", write_run(tmp_path, 2), "--db", server_url)
        assert done.returncode == 2
        assert "it is locked by another process: canceling statement due to lock timeout" in done.stderr
        assert done.stderr.endswith("; end what holds it, or try again\n")
        assert short_wait("history", "--db", server_url).returncode == 0, "readers go on"
    assert content(server_url) == before


def test_a_read_only_server_is_told(server_url, tmp_path):
    administer(server_url, f"ALTER DATABASE {database_of(server_url)} SET default_transaction_read_only = on")
    told = refused("import", write_run(tmp_path, 2), "--db", server_url)
    assert "it is read-only: cannot execute INSERT in a read-only transaction; name the server that takes" in told
    assert content(server_url)[0] == {"run-1"}


def test_a_user_without_rights_is_told(server_url, tmp_path):
    user = f"reader_{os.getpid()}"
    administer(server_url, f"CREATE ROLE {user} LOGIN", f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {user}")
    try:
        url = server_url.replace("//mlbench@", f"//{user}@")
        told = refused("import", write_run(tmp_path, 2), "--db", url)
        assert "not allowed: permission denied for table mlbench_runs; ask for the right to create and write" in told
        assert content(url)[0] == {"run-1"}, "reading is allowed"
    finally:
        administer(server_url, f"DROP OWNED BY {user}", f"DROP ROLE {user}")


def test_a_server_that_stops_in_the_middle_is_told(server_url, tmp_path):
    name = database_of(server_url)
    with standing_still(write_run(tmp_path, 2), server_url, seconds=1) as process:
        ours = f"datname = '{name}' AND pid <> pg_backend_pid()"
        administer(server_url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.startswith(f"mlbench: the history postgresql://mlbench@/{name}?")
    assert ": it cannot be reached: " in err
    assert err.count("\n") == 1, "one message, and no traceback"
    assert content(server_url)[0] == {"run-1"}


def test_a_full_disk_of_the_server_is_told(postgres, tmp_path, require):
    if os.environ.get("MLBENCH_TEST_POSTGRES"):
        pytest.skip("the server's disk is not ours to fill")
    owner = "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"
    folder = Path(f"/tmp/mlbench-small-{os.getpid()}")
    try:
        with small_disk(folder, "16m", owner):
            place, name = f"small_{os.getpid()}", f"mlbench_small_{os.getpid()}"
            administer(postgres, f"CREATE TABLESPACE {place} LOCATION '{folder}'")
            administer(postgres, f"CREATE DATABASE {name} TABLESPACE {place}")
            url = postgres.replace("/postgres?", f"/{name}?")
            try:
                assert mlbench("import", write_run(tmp_path, 1), "--db", url).returncode == 0
                with (folder / "ballast").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
                    while True:
                        stream.write(bytes(4096))
                told = refused("import", write_run(tmp_path, 2, records=400, metrics=20), "--db", url)
                assert "the server's disk is full; nothing of this run was kept: could not extend file" in told
                assert content(url)[0] == {"run-1"}
            finally:
                administer(postgres, f"DROP DATABASE {name} WITH (FORCE)", f"DROP TABLESPACE {place}")
    finally:
        if folder.exists():
            folder.rmdir()


# --- run files that are none --------------------------------------------------------------------------------


def hostile(line, **header):
    """Return the text of a run file with this record."""
    first = {"kind": "header", "schema": 1, "id": "bad", "started": "2026-01-31T12:00:00+00:00", **header}
    return json.dumps(first) + "\n" + line + "\n"


def of_record(**more):
    return json.dumps({"kind": "record", "case": CASE, "node": "n", "axes": {}, "outcome": "pass", **more})


P50 = {"name": "latency.p50", "value": 1.0, "unit": "ns", "direction": "lower"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (hostile(of_record(), schema=2), "has schema 2, this version reads up to 1; upgrade pytest-mlbench"),
        (hostile(of_record())[:-20], "line 2: not JSON: "),
        ("", "the file is cut off or of another format"),
        ('{"benchmarks": [{"name": "x"}]}', "none of the formats that can be read"),
        (hostile(of_record(metrics=[{**P50, "value": 10**400}])), "metrics[0].value: expected a finite number"),
        (hostile(of_record(metrics=[P50]).replace("1.0", "NaN")), "line 2: not JSON: NaN is no number of JSON"),
        (hostile(of_record(metrics=[P50]).replace("1.0", "1e999")), "line 2: not JSON: 1e999 is no number of JSON"),
        (hostile('{"kind":"record","x":' + "[" * 50_000 + "]" * 50_000 + "}"), "line 2: not JSON: "),
        (hostile('{"kind":"record","x":' + "[" * 60 + "]" * 60 + "}"), "not JSON: nested deeper than 40 levels"),
        (hostile(of_record(metrics=[{**P50, "value": "1"}])), "metrics[0].value: expected a number, found str"),
        (hostile(of_record(case=["c"])), "case: expected str, found list"),
        (hostile(of_record(metrics=[{**P50, "n": 10**30}])), "n: expected a whole number from 0 to"),
        (hostile(of_record(reason="a\0b")), "reason: holds a NUL character"),
        (hostile(of_record(case="\ud800")), "holds characters that cannot be printed"),
        (hostile(of_record(case="s/b[\x1b[2J]")), "holds characters that cannot be printed"),
        (hostile(of_record(), id={"$ne": 1}), "id: expected a string, found dict"),
        (hostile(of_record(), started="soon"), "started: expected a time like 2026-01-31T12:00:00+00:00, found 'soon'"),
        (hostile(of_record(), id="run-1"), "has a run run-1 with other content"),
    ],
    ids=lambda value: None if "\n" in value or not value else value[:20].replace(" ", "_"),
)
def test_a_bad_run_file_changes_nothing_and_the_others_are_imported(filled, verb, tmp_path, text, message):
    bad, good = tmp_path / "bad.jsonl", write_run(tmp_path, 2)
    bad.write_text(text, encoding="utf-8")
    before = content(filled)
    done = verb("import", bad, "--db", filled)
    assert (done.returncode, done.stdout.partition(":")[0]) in ((2, ""), (2, "history"))
    assert done.stderr.startswith("mlbench: ")
    assert f"{bad}" in done.stderr
    assert message in done.stderr
    assert content(filled) == before
    done = verb("import", bad, good, "--db", filled)
    assert done.returncode == 2, "one of them could not be kept"
    assert done.stdout.splitlines()[0] == f"{good}: run run-2 kept, 3 records"
    assert content(filled)[0] == {"run-1", "run-2"}


def test_a_bad_file_alone_makes_no_history(tmp_path):
    told = refused("import", tmp_path / "gone.jsonl", "--db", f"sqlite:///{tmp_path / 'h.db'}")
    assert "gone.jsonl" in told
    assert list(tmp_path.iterdir()) == []


def test_the_journals_of_a_killed_run_and_the_run_file_made_of_them_are_one_run(filled, tmp_path):
    path = tmp_path / "killed.jsonl"
    runfile.begin(path, {"id": "killed", "started": "2026-02-01T12:00:00+00:00"})
    for worker in ("gw0", "gw1"):
        record = Record(CASE.replace("c", worker, 1), "node", {}, "pass", fingerprint="f")
        runfile.Journal(path, worker).append(record)
    done = mlbench("import", runfile.parts_dir(path), "--db", filled)
    assert "run killed kept, 2 records" in done.stdout, done.stderr
    runfile.finish(path, {"exitstatus": None})
    assert "run killed was there before" in mlbench("import", path, "--db", filled).stdout
