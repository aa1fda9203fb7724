"""`mlbench new device NAME`: what it writes, and what it refuses."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from pathlib import Path

import pytest

from pytest_mlbench.cli import main
from pytest_mlbench.errors import MlbenchError
from pytest_mlbench.new_command import replacements, template_folder, write_package

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

not_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the administrator may write everywhere"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- what it writes -----------------------------------------------------------------------------------------


def test_it_writes_a_package_and_says_what_comes_next(here, capsys):
    assert main(["new", "device", "acme_m4"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("wrote pytest-mlbench-acme-m4\n")
    assert "pip install -e pytest-mlbench-acme-m4\n" in printed
    assert "cd pytest-mlbench-acme-m4 && python -m pytest\n" in printed
    assert f"{Path('pytest-mlbench-acme-m4', 'README.md')} says what to replace" in printed
    assert files_of(here / "pytest-mlbench-acme-m4") == [
        "README.md",
        "pyproject.toml",
        "pytest_mlbench_acme_m4/__init__.py",
        "pytest_mlbench_acme_m4/acme_m4_transport.py",
        "pytest_mlbench_acme_m4/devices.py",
        "pytest_mlbench_acme_m4/simulated_probe.py",
        "pytest_mlbench_acme_m4/simulator.py",
        "tests/conftest.py",
        "tests/test_contract.py",
        "tests/test_session.py",
    ]


def test_nothing_of_the_template_s_own_name_is_left(tmp_path):
    made = write_package("acme_m4", tmp_path / "made", template_folder())
    for file in made.rglob("*"):
        text = file.name + (file.read_text(encoding="utf-8") if file.is_file() else "")
        assert "template" not in text.lower(), file
    assert "class AcmeM4Type:" in (made / "pytest_mlbench_acme_m4" / "devices.py").read_text(encoding="utf-8")


def test_it_is_registered_under_its_name(tmp_path):
    made = write_package("acme_m4", tmp_path / "made", template_folder())
    project = tomllib.loads((made / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == "pytest-mlbench-acme-m4"
    assert project["entry-points"] == {"mlbench.devices": {"acme_m4": "pytest_mlbench_acme_m4.devices:TYPE"}}


TAKEN = ["x", "acme_m4", "class", "none", "path", "test", "setting", "fake_board", "board2", "a" * 40]


@pytest.mark.parametrize("name", TAKEN)
def test_every_name_that_is_taken_gives_python(name, tmp_path):
    made = write_package(name, tmp_path / "made", template_folder())
    for file in made.rglob("*.py"):
        assert all(part.isidentifier() for part in file.relative_to(made).with_suffix("").parts)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
        imported = {alias.asname or alias.name for node in imports for alias in node.names}
        defined = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        assert imported & defined == set(), file


def test_words_of_the_template_become_those_of_the_name():
    assert replacements("acme_m4_v2") == {
        "template_board": "acme_m4_v2",
        "template-board": "acme-m4-v2",
        "TemplateBoard": "AcmeM4V2",
    }


def test_a_name_that_holds_a_word_of_the_template_is_replaced_once(tmp_path):
    made = write_package("template_board_2", tmp_path / "made", template_folder())
    assert (made / "pytest_mlbench_template_board_2" / "template_board_2_transport.py").is_file()


def test_the_folder_may_be_named_and_may_be_there_when_it_is_empty(here, capsys):
    (here / "my boards" / "empty").mkdir(parents=True)
    assert main(["new", "device", "acme_m4", "--folder", "my boards/empty"]) == 0
    assert "pip install -e 'my boards/empty'" in capsys.readouterr().out
    assert main(["new", "device", "acme_m4", "--folder", "deep/down/here"]) == 0
    assert (here / "deep" / "down" / "here" / "pyproject.toml").is_file()


def test_the_folder_may_be_where_one_is(here):
    assert main(["new", "device", "acme_m4", "--folder", "."]) == 0
    assert (here / "pyproject.toml").is_file()


def test_what_tools_left_in_a_checkout_is_not_copied(tmp_path):
    template = tmp_path / "template"
    shutil.copytree(template_folder(), template)
    for name in ("__pycache__/a.pyc", "dist/a.whl", "x.egg-info/PKG-INFO", ".pytest_cache/README.md"):
        (template / name).parent.mkdir(exist_ok=True)
        (template / name).write_bytes(b"\xff")
    made = write_package("acme_m4", tmp_path / "made", template)
    assert len(files_of(made)) == 10


# --- what it refuses ----------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    """Return the one message of a verb that fails."""
    assert main(["new", "device", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err.removeprefix("mlbench: ").strip()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("acme-m4", "acme_m4"),
        ("Acme M4", "acme_m4"),
        ("4board", "board"),
        ("a__b", "a_b"),
        ("board_", "board"),
        ("_board", "board"),
        ("acme.m4", "acme_m4"),
        ("../../etc/cron", "etc_cron"),
        ("$(reboot)", "reboot"),
        ("a" * 60, "a" * 40),
        ("", "acme_m4"),
        ("42", "acme_m4"),
        ("\N{SNOWMAN}", "acme_m4"),
        ("acme\nm4", "acme_m4"),
    ],
)
def test_a_name_that_can_be_no_module_is_refused_with_one_that_can(here, capsys, name, hint):
    told = refused(capsys, name)
    assert told.startswith(f"{name!r} can be no device's name: it stands in case ids and names a Python module; write ")
    assert told.endswith(f'for example "{hint}"')
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["cpu", "serial", "ssh"])
def test_a_name_that_is_registered_is_refused(here, capsys, name):
    told = refused(capsys, name)
    assert told == f"a device {name!r} is registered by an installed package already; choose another name"
    assert list(here.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(here, capsys):
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine", encoding="utf-8")
    told = refused(capsys, "acme_m4", "--folder", "mine")
    assert told == "mine exists and is not empty; name another folder with --folder, or remove it"
    assert files_of(here) == ["mine/notes.txt"]


def test_it_writes_over_no_package_of_its_own(here, capsys):
    assert main(["new", "device", "acme_m4"]) == 0
    capsys.readouterr()
    assert refused(capsys, "acme_m4").startswith("pytest-mlbench-acme-m4 exists and is not empty; name another folder")


def test_a_file_where_the_folder_would_be_is_left_alone(here, capsys):
    (here / "mine").write_text("mine", encoding="utf-8")
    assert refused(capsys, "acme_m4", "--folder", "mine") == (
        "mine exists and is no folder; name another one with --folder"
    )
    assert (here / "mine").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="makes a link")
def test_a_link_to_nothing_is_not_written_through(here, capsys):
    (here / "mine").symlink_to(here / "elsewhere")
    assert "mine exists and is no folder" in refused(capsys, "acme_m4", "--folder", "mine")
    assert not (here / "elsewhere").exists()


def test_a_folder_below_a_file_cannot_be_written(here, capsys):
    (here / "file").write_text("", encoding="utf-8")
    told = refused(capsys, "acme_m4", "--folder", "file/below")
    assert told.startswith(f"the package cannot be written to {Path('file', 'below')}: ")
    assert told.endswith("; name a folder that you may write to with --folder")


@not_root
def test_a_folder_that_may_not_be_written(here, capsys):
    (here / "locked").mkdir(mode=0o555)
    told = refused(capsys, "acme_m4", "--folder", "locked/new")
    assert "Permission denied; name a folder that you may write to with --folder" in told


@pytest.mark.parametrize("existed", [True, False])
def test_when_writing_fails_half_way_nothing_is_left(tmp_path, existed):
    template, folder = tmp_path / "template", tmp_path / "made"
    shutil.copytree(template_folder(), template)
    long = template / "z" / ("template_board" * 15)  # the last one, whose name becomes too long for a file
    long.parent.mkdir()
    long.write_text("", encoding="utf-8")
    if existed:
        folder.mkdir()
    with pytest.raises(MlbenchError, match=r"the package cannot be written to .*made: File name too long; name a"):
        write_package("a" * 39, folder, template)
    assert folder.is_dir() == existed
    assert not existed or list(folder.iterdir()) == []


def test_an_installation_without_its_template_says_so(tmp_path):
    with pytest.raises(MlbenchError) as caught:
        template_folder(tmp_path / "site-packages" / "pytest_mlbench")
    told = str(caught.value)
    assert told.startswith("the template of a device's package is missing from this installation (")
    assert told.endswith("reinstall it: pip install --force-reinstall pytest-mlbench")


def test_the_template_is_taken_from_the_wheel_first(tmp_path):
    package = tmp_path / "pytest_mlbench"
    for folder in (package / "template", tmp_path / "fixtures" / "template"):
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").touch()
    assert template_folder(package) == package / "template"
    (package / "template" / "pyproject.toml").unlink()
    assert template_folder(package) == tmp_path / "fixtures" / "template"


def test_only_devices_can_be_begun(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["new", "framework", "acme"])
    assert caught.value.code == 2
    assert "invalid choice: 'framework'" in capsys.readouterr().err
