"""The history's URL: what it may be, what opens it, and that no password is ever shown."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

from pytest_mlbench import registry
from pytest_mlbench.errors import HistoryError
from pytest_mlbench.stores.url import DEFAULT, history_url, open_store

HINT = "expected sqlite:///FILE or postgresql://USER@HOST/NAME"


def refused(url, **more):
    with pytest.raises(HistoryError) as caught:
        open_store(url, **{"create": True, "wait_s": 1, **more})
    return str(caught.value)


def test_what_is_given_goes_before_the_environment_and_that_before_the_current_folder(monkeypatch):
    monkeypatch.delenv("MLBENCH_HISTORY", raising=False)
    assert history_url(None) == DEFAULT == "sqlite:///.mlbench/history.db"
    monkeypatch.setenv("MLBENCH_HISTORY", "sqlite:///team.db")
    assert history_url(None) == "sqlite:///team.db"
    assert history_url("sqlite:///own.db") == "sqlite:///own.db"
    monkeypatch.setenv("MLBENCH_HISTORY", "")
    assert history_url(None) == DEFAULT


@pytest.mark.parametrize("url", ["history.db", "/var/lib/history.db", "sqlite://", "sqlite:/history.db", "me:pw@host"])
def test_what_is_no_url_is_refused_and_not_repeated(url):
    assert refused(url) == f"the history's URL (--db or MLBENCH_HISTORY) is none: {HINT}"


@pytest.mark.parametrize("scheme", ["mysql", "postgresql+psycopg2", "file", ""])
def test_an_unknown_scheme_is_refused(scheme):
    told = refused(f"{scheme}://me:secret@host/name")
    assert told.startswith(f"no store is known for the URL scheme {scheme!r}: {HINT} (known: ")
    assert "postgresql, sqlite" in told or "sqlite, postgresql" in told
    assert "secret" not in told


@pytest.mark.parametrize("url", ["sqlite:///:memory:", "sqlite:///", "sqlite://x.db", "sqlite:///x.db?mode=memory"])
def test_a_sqlite_url_names_a_file_and_nothing_else(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(url) == f"the history {url} names no file: expected sqlite:///FILE, without options"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["postgresql://me:secret@host:port/name", "postgresql://me:secret@host:99x/name"])
def test_a_url_that_cannot_be_read_is_refused_and_not_repeated(url):
    told = refused(url)
    assert told == "the history's URL (--db or MLBENCH_HISTORY) cannot be read: check host and port"


def test_a_file_that_is_not_there_is_made_for_imports_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused(DEFAULT, create=False)
    assert told == "there is no history at .mlbench/history.db: import a run first, mlbench import RUN_FILE"
    assert list(tmp_path.iterdir()) == []
    store = open_store(DEFAULT, create=True)
    assert store.place == DEFAULT
    store.close()
    assert (tmp_path / ".mlbench" / "history.db").is_file()
    assert (tmp_path / ".mlbench" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("name", ["100% #1.db", "ü.db", "a+b & c%20d.db", "x:y@z.db"])
def test_any_name_of_a_file_will_do(tmp_path, name):
    store = open_store(f"sqlite+pysqlite:///{tmp_path / name}", create=True)
    assert store.place == f"sqlite:///{tmp_path / name}"
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_postgresql_opens_it(postgres_database, scheme):
    store = open_store(postgres_database.replace("postgresql:", f"{scheme}:"), create=True)
    assert store.runs() == ()
    assert store.place.startswith("postgresql://")
    store.close()


def test_a_password_is_never_shown(postgres_database):
    url = postgres_database.replace("//mlbench@", "//mlbench:s3cret@") + "&password=s3cret"
    store = open_store(url, create=True)
    assert "s3cret" not in store.place
    store.close()
    for wrong in ("postgresql://me:s3cret@127.0.0.1:9/name?password=s3cret", f"{url}&port=1", f"{url}&nonsense=1"):
        assert "s3cret" not in refused(wrong)


def test_without_the_extra_the_line_that_installs_it_is_told(tmp_path):
    for module, url, needs in (
        ("sqlalchemy", "sqlite:///h.db", "sqlalchemy"),
        ("psycopg", "postgresql://h/n", "psycopg"),
    ):
        code = (
            "import importlib.util, sys\n"
            "from pytest_mlbench.cli import main\n"
            "real = importlib.util.find_spec\n"
            f"importlib.util.find_spec = lambda name, *rest: None if name == {module!r} else real(name, *rest)\n"
            f"sys.exit(main(['history', '--db', {url!r}]))\n"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        told = f"mlbench: the history needs {needs}, not installed here: pip install 'pytest-mlbench[sql]'\n"
        assert done.stderr == told
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_registers_a_scheme_opens_it(tmp_path, monkeypatch):
    info = tmp_path / "acme_store-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-store\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mlbench.stores]\nacme = acme_store:open_store\n")
    (tmp_path / "acme_store.py").write_text(
        "def open_store(url, *, create, wait_s):\n    return (url, create, wait_s)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry._entry_points.cache_clear()
    try:
        assert open_store("acme://shelf/3", create=True, wait_s=7) == ("acme://shelf/3", True, 7)
    finally:
        registry._entry_points.cache_clear()
        sys.modules.pop("acme_store", None)


def test_both_databases_are_registered_as_anyone_elses_store_would_be():
    found = {entry.name: entry.value for entry in importlib.metadata.entry_points(group="mlbench.stores")}
    assert found["sqlite"] == found["postgresql"] == "pytest_mlbench.stores.history:open_history"
