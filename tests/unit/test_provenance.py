"""Which sources ran: told from files, and judged against the revision they should have come from."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_mlbench import provenance
from pytest_mlbench.provenance import Side


@pytest.fixture
def sides(tmp_path):
    for name in ("base", "candidate"):
        root = tmp_path / name
        (root / "suites" / "one").mkdir(parents=True)
        (root / "src" / "product").mkdir(parents=True)
        (root / "src" / "product" / "__init__.py").touch()
        (root / "setup.py").touch()
        (root / "docs").mkdir()
        (root / "suites" / "one" / "prepare.py").touch()
    base, candidate = tmp_path / "base", tmp_path / "candidate"
    return Side("base", base, candidate), Side("candidate", candidate, base)


def suite(side):
    return side.root / "suites" / "one" / "bench_one.toml"


def test_modules_are_looked_for_beside_the_suite_then_in_the_top_folder_and_src(sides):
    base, _ = sides
    assert base.paths(suite(base)) == [str(base.root / "suites/one"), str(base.root), str(base.root / "src")]
    flat = Side("base", base.root / "src", base.other)
    assert flat.paths(base.root / "src" / "bench_x.toml") == [str(base.root / "src")]


def test_own_modules_are_files_and_packages_with_sources(sides):
    base, _ = sides
    assert provenance.own_modules(base.paths(suite(base))) == ["prepare", "product", "setup"]


def test_modules_of_the_own_revision_and_of_others_are_no_strays(sides, tmp_path):
    base, _ = sides
    loaded = {
        "prepare": str(base.root / "suites/one/prepare.py"),
        "product": str(base.root / "src/product/__init__.py"),
        "plugin": str(tmp_path / "home" / "plugin.py"),
        "numpy": "/usr/lib/python3/dist-packages/numpy/__init__.py",
    }
    assert provenance.strays(loaded, base, suite(base)) == []


def test_an_installed_copy_of_an_own_module_is_a_stray(sides):
    base, _ = sides
    installed = "/usr/lib/python3/dist-packages/product/layers.py"
    assert provenance.strays({"product.layers": installed}, base, suite(base)) == [f"product.layers from {installed}"]


def test_a_module_of_the_other_revision_is_a_stray_whatever_its_name(sides):
    base, candidate = sides
    file = str(candidate.root / "tools" / "unheard_of.py")
    assert provenance.strays({"unheard_of": file}, base, suite(base)) == [f"unheard_of from {file}"]
    assert provenance.strays({"unheard_of": file}, candidate, suite(candidate)) == []


def test_a_base_inside_the_candidates_folder_is_told_from_it(tmp_path):
    root, inner = tmp_path / "repo", tmp_path / "repo" / ".cache" / "base"
    (inner / "suites").mkdir(parents=True)
    base, candidate = Side("base", inner, root), Side("candidate", root, inner)
    own, other = {"m": str(root / "m.py")}, {"m": str(inner / "m.py")}
    assert provenance.strays(other, base, inner / "bench_x.toml") == []
    assert provenance.strays(own, base, inner / "bench_x.toml") == [f"m from {own['m']}"]
    assert provenance.strays(own, candidate, root / "bench_x.toml") == []
    assert provenance.strays(other, candidate, root / "bench_x.toml") == [f"m from {other['m']}"]


def test_first_names_are_all_that_a_changed_file_may_be_imported_by():
    changed = {
        "packages/one/product/core/layers.py",
        "packages/one/product/data.json",
        "two-words/setup.py",
        "README.md",
    }
    found = provenance.first_names(changed)
    assert found == ["README", "core", "data", "layers", "one", "packages", "product", "setup"]


@pytest.fixture
def packaged(sides):
    """The sides of a repository with packages in folders that are not looked in; one was changed."""
    base, candidate = sides
    for side in sides:
        for name in ("toolkit", "steady"):
            package = side.root / "packages" / name / name
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
            (package / "layers.py").touch()
        (side.root / "tools").mkdir()
        (side.root / "tools" / "single.py").touch()
    (candidate.root / "packages" / "toolkit" / "toolkit" / "added.py").touch()
    changed = frozenset({"packages/toolkit/toolkit/data/weights.bin", "tools/single.py", "tests/numpy/test_it.py"})
    return replace(base, changed=changed), replace(candidate, changed=changed)


@pytest.mark.parametrize("name", ["toolkit", "toolkit.layers", "toolkit.added", "single"])
def test_an_installed_copy_of_what_was_changed_is_a_stray(packaged, name):
    file = f"/usr/lib/python3/dist-packages/{name.replace('.', '/')}.py"
    for side in packaged:
        assert provenance.strays({name: file}, side, suite(side)) == [f"{name} from {file}"]


@pytest.mark.parametrize(
    "name", ["steady", "steady.layers", "toolkit.unheard_of", "numpy", "packages", "tests.toolkit"]
)
def test_installed_modules_in_which_the_sides_do_not_differ_are_no_strays(packaged, name):
    file = f"/usr/lib/python3/dist-packages/{name.replace('.', '/')}.py"
    for side in packaged:
        assert provenance.strays({name: file}, side, suite(side)) == []


def test_a_digest_is_of_what_was_changed_and_of_nothing_else(packaged):
    base, candidate = packaged
    before = provenance.digest(candidate)
    assert before == provenance.digest(candidate) == provenance.digest(base)
    (candidate.root / "packages" / "steady" / "steady" / "layers.py").write_text("a = 1\n", encoding="utf-8")
    assert provenance.digest(candidate) == before
    (candidate.root / "tools" / "single.py").write_text("a = 1\n", encoding="utf-8")
    changed = provenance.digest(candidate)
    (candidate.root / "tools" / "single.py").unlink()
    assert len({before, changed, provenance.digest(candidate)}) == 3


def test_a_link_does_not_hide_where_a_module_stands(sides, tmp_path):
    base, candidate = sides
    link = tmp_path / "link"
    link.symlink_to(candidate.root)
    assert provenance.strays({"x": str(link / "x.py")}, base, suite(base)) == [f"x from {link / 'x.py'}"]


def test_the_message_names_the_modules_and_the_remedy(sides):
    base, candidate = sides
    text = provenance.told(["product from /a/product.py"], base)
    assert text == (
        f"the base must load its own modules, from {base.root}, but it loaded product from /a/product.py: the "
        "candidate would be compared with itself. Name modules that stand beside the suite or in the repository's top "
        "folder or src/, or give the base an environment of its own with --mlbench-base-python"
    )
    assert "the base would be compared with itself" in provenance.told(["x from y"], candidate)


def test_a_manifest_holds_as_long_as_its_files_do(tmp_path):
    source, manifest = tmp_path / "net.py", tmp_path / "sources.json"
    source.write_text("a = 1\n", encoding="utf-8")
    provenance.write_manifest(manifest, {"net": str(source)})
    assert provenance.read_manifest(manifest) == {"net": str(source)}
    source.write_text("a = 2\n", encoding="utf-8")
    assert provenance.read_manifest(manifest) is None
    source.unlink()
    assert provenance.read_manifest(manifest) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"net": 1}'])
def test_a_manifest_that_cannot_be_read_holds_nothing(tmp_path, text):
    manifest = tmp_path / "sources.json"
    manifest.write_text(text, encoding="utf-8")
    assert provenance.read_manifest(manifest) is None
    assert provenance.read_manifest(tmp_path / "none.json") is None
