"""Public descriptions of boards: ours, where they are found, and every way in which one can be wrong."""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path

import pytest

from pytest_mlbench import boards
from pytest_mlbench.boards import Boards, board_from_tables, folders, load_board
from pytest_mlbench.errors import SuiteError
from pytest_mlbench.registry import Registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
OURS = sorted((ROOT / "hardware" / "boards").glob("*.toml"))
TO_BEGIN_WITH = {
    *("raspberry-pi-3", "raspberry-pi-4", "raspberry-pi-5", "hikey960", "rk3399", "pynq-z1"),
    *("jetson-tx1", "jetson-tx2", "jetson-orin-nano", "jetson-agx-orin", "nucleo-l4r5zi", "nucleo-h7a3zi-q"),
    *("mps2-an386", "mps2-an500", "mps3-an547"),
}
GOOD = """
mlbench = 1
title = "A board"
maker = "Acme"
notes = "A note."
[[soc]]
name = "X1"
process = "16 nm"
source = "brief"
[[cores]]
name = "Arm Cortex-A76"
count = 4
clock = "2.4 GHz"
extensions = ["NEON", "dot product"]
source = "brief"
[[memory]]
size = "640 KiB"
source = "brief"
[[rails]]
name = "VIN"
voltage = "5 V"
current = "500 mA"
source = "brief"
[[prices]]
amount = 60
currency = "USD"
as_of = "2023-10"
source = "shop"
[sources]
brief = { title = "Product brief", url = "https://acme.example/brief", read = 2026-01-31 }
shop = { title = "Shop", url = "https://shop.example/a", read = 2026-01-31 }
"""


def made(text=GOOD):
    return board_from_tables(tomllib.loads(text), Path("acme.toml"))


def refused(text):
    with pytest.raises(SuiteError) as caught:
        made(text)
    return str(caught.value)


# --- ours -----------------------------------------------------------------------------------------------------


def test_the_boards_of_request_and_mlperf_tiny_are_described():
    assert {path.stem for path in OURS} >= TO_BEGIN_WITH


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_each_of_ours_is_right_and_tells_something_with_a_source(path):
    board = load_board(path)
    assert board.name == path.stem
    assert board.of("soc"), "which chip is the least there is to say"
    assert all(fact.source.url.startswith("https://") for fact in board.facts)
    assert all(fact.source.read >= date(2026, 1, 1) for fact in board.facts)
    assert board.emulated == path.stem.startswith("mps")
    if board.emulated:
        assert all("clock_hz" not in cores for cores in board.of("cores")), "its time is counted in instructions"


def test_what_is_read_of_a_board():
    five = load_board(ROOT / "hardware" / "boards" / "raspberry-pi-5.toml")
    assert five.of("cores") == ({"name": "Arm Cortex-A76", "count": 4, "clock_hz": 2_400_000_000, "isa": "Armv8-A"},)
    assert [memory["bytes"] for memory in five.of("memory")] == [4 * 10**9, 8 * 10**9]
    assert [price["amount"] for price in five.of("prices")] == [60.0, 80.0]


# --- what is read ---------------------------------------------------------------------------------------------


def test_a_description_is_read_with_units_in_the_names():
    board = made()
    assert (board.name, board.title, board.maker, board.emulated, board.notes) == (
        "acme",
        "A board",
        "Acme",
        False,
        "A note.",
    )
    assert board.of("cores")[0]["clock_hz"] == 2_400_000_000
    assert board.of("cores")[0]["extensions"] == ("NEON", "dot product")
    assert board.of("memory") == ({"bytes": 640 * 1024},)
    assert board.of("rails") == ({"name": "VIN", "voltage_v": 5, "current_a": 0.5},)
    assert board.of("prices") == ({"amount": 60.0, "currency": "USD", "as_of": "2023-10"},)
    assert board.of("storage") == ()
    (price,) = (fact for fact in board.facts if fact.kind == "prices")
    assert price.source == boards.Source("Shop", "https://shop.example/a", date(2026, 1, 31))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mlbench = 1\n", "", 'acme.toml: the key "mlbench" is missing; write for example: mlbench = 1'),
        ("mlbench = 1\n", "mlbench = 2\n", "mlbench: this version reads schema 1; update pytest-mlbench"),
        ('title = "A board"\n', "", 'the key "title" is missing'),
        ('maker = "Acme"\n', "", 'the key "maker" is missing'),
        ('maker = "Acme"\n', 'maker = "Acme"\ncpu = 3\n', "cpu: unknown key; "),
        ('maker = "Acme"\n', 'maker = "Acme"\nemulated = "no"\n', "emulated: expected true or false"),
        (
            'process = "16 nm"\nsource = "brief"\n',
            "",
            'soc[0]: the key "source" is missing; write for example: source = ',
        ),
        (
            'process = "16 nm"\nsource = "brief"',
            'source = "breif"',
            'soc[0].source: unknown source "breif"; did you mean',
        ),
        ('name = "X1"\n', "", 'soc[0]: the key "name" is missing'),
        ('size = "640 KiB"\n', "", "memory[0]: tells nothing beside its source; take it out"),
        ("count = 4", "count = 0", "cores[0].count: must be at least 1, found 0"),
        ('"2.4 GHz"', '"2.4GHz"', 'cores[0].clock: expected a number and one of Hz, kHz, MHz, GHz, as in "2 GHz"'),
        ('"2.4 GHz"', "2400", "cores[0].clock: expected a string, found 2400"),
        ('"640 KiB"', '"640 K"', "memory[0].size: expected a number and one of B, KiB, MiB, GiB, kB, MB, GB"),
        ('["NEON", "dot product"]', '["NEON", "NEON"]', 'cores[0].extensions[1]: extensions "NEON" is given twice'),
        ("amount = 60", "amount = 0", "prices[0].amount: must be above 0, found 0"),
        ('as_of = "2023-10"\n', "", 'prices[0]: the key "as_of" is missing'),
        ('"2023-10"', '"2023-13"', 'prices[0].as_of: expected when it was so, as in "2023", "2023-10" or "2023-10-31"'),
        ('"https://acme.example/brief"', '"our wiki"', "sources.brief.url: expected the address of a page, found"),
        ("read = 2026-01-31 }\nshop", 'read = "today" }\nshop', "sources.brief.read: expected a day, as in 2026-01-31"),
        ("read = 2026-01-31 }\nshop", "read = 2026-01-31T10:00:00 }\nshop", "sources.brief.read: expected a day"),
        (", read = 2026-01-31 }\nshop", " }\nshop", 'sources.brief: the key "read" is missing'),
        (
            "shop = {",
            'unused = { title = "x", url = "https://x.example", read = 2026-01-31 }\nshop = {',
            "no fact names it",
        ),
        ('[[soc]]\nname = "X1"\nprocess = "16 nm"\nsource = "brief"', 'soc = "X1"', "soc: expected a list of tables"),
    ],
)
def test_a_wrong_description_is_told_with_its_key(old, new, message):
    assert GOOD.count(old) >= 1
    assert message in refused(GOOD.replace(old, new, 1))


def test_a_malformed_file_is_told_with_its_line(tmp_path):
    path = tmp_path / "acme.toml"
    path.write_text("mlbench = \n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"acme.toml: malformed TOML: .*line 1"):
        load_board(path)


def test_the_name_of_a_file_is_the_name_of_the_board(tmp_path):
    path = tmp_path / "a board.toml"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(SuiteError, match='"a board" may hold only letters, digits'):
        load_board(path)


# --- where they are -------------------------------------------------------------------------------------------


def written(folder, **titles):
    folder.mkdir(parents=True)
    for name, title in titles.items():
        (folder / f"{name}.toml").write_text(GOOD.replace("A board", title), encoding="utf-8")
    return folder


def test_the_projects_own_come_before_a_vendors_and_ours(tmp_path, monkeypatch):
    own = written(tmp_path / "project" / "hardware" / "boards", one="own", two="own")
    site = tmp_path / "site"
    vendors = written(site / "acme_boards" / "hardware" / "boards", two="vendor", three="vendor")
    (site / "acme_boards" / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    info = site / "acme_boards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-boards\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[mlbench.boards]\nacme = acme_boards\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    places = folders(tmp_path / "project")
    assert places[:2] == (own, vendors)
    found = Boards(places)
    assert [found[name].title for name in ("one", "two", "three")] == ["own", "own", "vendor"]
    assert set(found) > TO_BEGIN_WITH, "ours come last"
    assert len(found) == len(set(found))
    assert "acme_boards" not in sys.modules


def test_a_project_without_boards_has_ours(tmp_path):
    assert "raspberry-pi-5" in Registry(root=tmp_path).boards
    assert "nothing" not in Registry(root=tmp_path).boards


def test_a_wrong_description_harms_only_those_who_ask_for_it(tmp_path):
    place = written(tmp_path / "boards", good="good", bad="bad")
    (place / "bad.toml").write_text("mlbench = 7\n", encoding="utf-8")
    found = Boards((place,))
    assert found.get_known("good").title == "good"
    with pytest.raises(SuiteError, match=r"bad\.toml"):
        _ = found["bad"]
    with pytest.raises(SuiteError, match='unknown board "goood"; did you mean "good"'):
        found.get_known("goood")
