"""What can go wrong in a comparison with a base: none of it is a verdict, a hang or a silent pass."""

from __future__ import annotations

import re
import shutil
import signal

import pytest

from pytest_mlbench.stores import runfile

CASE = "faults/run[net-{}-fp32-cpu]"

# Metrics of a suite's own, each with something that cannot be compared.
METRICS = """
from pathlib import Path

from pytest_mlbench.record import Metric


def odd(m):
    is_base = m.case.suite.path.parent != Path(__file__).parent
    return [
        Metric("own.still", 5.0, "ns", "lower"),
        Metric("own.once", None if is_base else 1.0, "", "lower", reason="it is not there" if is_base else ""),
        Metric("own.nothing", 0.0, "", "lower"),
        Metric("own.shape", 3.0, "", "none"),
        Metric("own.unknown", None, "", "lower", reason="nobody knows"),
    ]
"""
ODD = {
    "own.still": "own.still differs by exactly the same in each of 6 rounds, which measured times never do",
    "own.once": "the base did not measure own.once in 6 of 6 rounds",
    "own.nothing": "the base gave own.nothing = 0; a ratio needs finite numbers above 0",
    "own.shape": "own.shape has no better direction, so it can be neither better nor worse",
    "own.unknown": "own.unknown was not measured: nobody knows",
    "own.never": "there is no metric own.never in this case",
}
OVERRIDES = """
[[benchmark.override]]
when = { framework = ["hangs"] }
set.timeout_s = 1
[[benchmark.override]]
when = { framework = ["odd"] }
set.metrics = ["own:odd"]
[benchmark.override.set.expect.own]
""" + "\n".join(f'{name.partition(".")[2]}.max_regression = "1 %"' for name in ODD)

# What goes wrong in the base's process: fault, stage, and what is told.
IN_BASE = {
    "in_round": ("exit", "measure", r"measure: the agent ended: exit status 3"),
    "raises": ("raise", "load", r"load: RuntimeError: injected fault"),
    "crashes": ("segfault", "first", r"first: the agent ended: killed by SIGSEGV"),
    "hangs": ("hang_python", "accuracy", r"accuracy: no answer within 1 s \(deadline `timeout_s`\)"),
}

PREPARE = """
from product import factor


def prepare(batch):
    return {name: factor() * array for name, array in batch.items()}
"""
PRODUCT = "def factor():\n    return {}\n"


def reasons(result, word="faulty"):
    """Return why each metric of a case cannot be compared."""
    return {name: one.reason for name, one in result.comparisons[word].items() if one.verdict == "invalid"}


# --- no base at all ------------------------------------------------------------------------------------------


def refused(repository, result, *messages):
    """Assert that nothing was measured, and that the option and each message are told."""
    assert result.code == pytest.ExitCode.USAGE_ERROR
    for message in ("ERROR: --mlbench-base ", *messages):
        assert message in result.text
    assert "Traceback" not in result.out
    assert repository.count("load") == 0
    assert result.run is None or not result.run.records


def test_a_base_without_the_suite(repository):
    base = repository.commit()
    repository.suite()
    result = repository.compare()
    has = f"the base {base[:12]} has none of the 1 cases selected ({CASE.format('faulty')}, ...): it has no such suite"
    refused(repository, result, has, "Name a base that has them, or leave the option out for the change that adds them")


def test_a_revision_that_is_not_there(repository):
    repository.suite()
    repository.commit()
    result = repository.compare("--mlbench-base=mian")
    refused(repository, result, 'unknown revision "mian"; did you mean "main"?')


def test_a_folder_that_is_no_repository(bed):
    bed.suite()
    result = bed.run("--mlbench-base=HEAD", GIT_CEILING_DIRECTORIES=str(bed.root))
    refused(bed, result, f"{bed.project} is not in a git work tree", "or leave --mlbench-base out")


def test_a_shallow_clone_says_how_to_deepen_it(make_repository, repository):
    upstream = make_repository()
    upstream.suite()
    first = upstream.commit()
    upstream.commit()
    shutil.rmtree(repository.project)
    repository.git_in(repository.root, "clone", "--quiet", "--depth=1", upstream.project.as_uri(), "project")
    result = repository.compare(f"--mlbench-base={first}")
    deepen = f"deepen it with `git fetch --deepen=200 origin {first}`, or fetch everything with `git fetch --unshallow"
    refused(repository, result, "this is a shallow clone: ", deepen, "for actions/checkout set `fetch-depth: 0`")


def test_fewer_rounds_than_could_ever_decide(repository):
    repository.suite()
    repository.commit()
    result = repository.compare("--mlbench-rounds=4")
    told = "--mlbench-rounds 4 can never tell a regression: the smallest p-value it can give is 0.062"
    refused(repository, result, told, "needs 0.05; give at least 5")


# --- a base that cannot be read ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unreadable(make_repository):
    """Return the comparison with a base of which every suite has something wrong."""
    made = make_repository()
    names = ("schema", "key", "pointer")
    for name in names:
        path = made.suite(made.faulty(name), name=name)
        text = path.read_text(encoding="utf-8")
        if name == "schema":
            path.write_text(text.replace("mlbench = 1", "mlbench = 99"), encoding="utf-8")
        elif name == "key":
            path.write_text(text.replace("precision =", "precisoin ="), encoding="utf-8")
        else:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
            (path.parent / "model.json").write_text(pointer, encoding="utf-8")
    made.commit()
    for name in names:
        made.suite(made.faulty(name), name=name)
    return made.compare(made.NO_ROUNDS)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("schema", r"the base's suite cannot be read: .*bench_schema\.toml: mlbench: .*99"),
        (
            "key",
            r"the base's suite cannot be read: .*bench_key\.toml: benchmark\[0\]\.precisoin: unknown key; did you mean",
        ),
        ("pointer", r"the base cannot be run: .*model\.json.* Git LFS pointer.*git lfs"),
    ],
)
def test_a_base_that_cannot_be_read_is_invalid(unreadable, word, told):
    record = unreadable.records[word]
    assert record.outcome == "invalid"
    assert record.metric("latency.p50").value > 0, "what the candidate measured stands"
    assert re.search(told, reasons(unreadable, word)["latency.p50"], re.DOTALL)
    assert re.search(
        rf"invalid: {word}/run\[net-{word}-fp32-cpu\]:\ninvalid: latency\.p50: {told}", unreadable.out, re.DOTALL
    )
    assert unreadable.code == 11
    assert "Traceback" not in unreadable.out


def test_a_case_that_was_renamed_fails_the_run(repository):
    for word in ("answers_first", "answers_firstly"):
        repository.suite(repository.faulty("kept"), repository.faulty(word))
        if word == "answers_first":
            base = repository.commit()
    result = repository.compare(repository.NO_ROUNDS, "-k", "kept")
    told = f"vanished: {CASE.format('answers_first')}: renamed to {CASE.format('answers_firstly')}?"
    assert f"mlbench: not every case of the base {base[:12]} is measured here:\n  {told}\n" in result.out
    assert "If that is meant: mlbench freeze" in result.out
    assert [f"{one['what']}: {one['name']}: {one['detail']}" for one in result.run.footer["lost"]] == [told]
    assert {word: record.outcome for word, record in result.records.items()} == {"kept": "invalid"}
    assert result.code == result.run.footer["exitstatus"] == 1, "an invalid case alone would be 11"


# --- a side that fails ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faults(make_repository):
    """Return the comparison with a base that fails in each way, before a case with odd metrics."""
    made = make_repository()
    for is_base in (True, False):
        words = [
            made.faulty(word, **({"fault": fault, "stage": stage} if is_base else {}))
            for word, (fault, stage, _) in IN_BASE.items()
        ]
        path = made.suite(*words, made.faulty("odd", spin_us=200), tables=OVERRIDES)
        (path.parent / "own.py").write_text(METRICS, encoding="utf-8")
        if is_base:
            made.commit()
    return made.compare()


@pytest.mark.parametrize("word", IN_BASE)
def test_a_failure_of_the_base_makes_its_case_invalid(faults, word):
    record = faults.records[word]
    (reason,) = reasons(faults, word).values()
    assert re.match(f"the base failed in stage {IN_BASE[word][2]}", reason), reason
    assert record.outcome == "invalid"
    assert record.metric("latency.p50").value > 0, "what the candidate measured stands"
    assert f"invalid: {CASE.format(word)}:\ninvalid: latency.p50: {reason}" in faults.out


@pytest.mark.parametrize("metric", ODD)
def test_a_metric_that_cannot_be_compared_is_invalid(faults, metric):
    assert reasons(faults, "odd")[metric].startswith(ODD[metric])
    assert f"\ninvalid: {metric}: {ODD[metric]}" in faults.out


def test_the_rest_is_judged(faults):
    assert faults.comparisons["odd"]["latency.p50"].verdict == "pass"
    assert set(reasons(faults, "odd")) == set(ODD)
    assert faults.records["odd"].base["control"]["case"] == CASE.format("odd"), "the first that could be taken"
    assert f"{len(IN_BASE) + 1} failed" in faults.out
    assert faults.run.footer["lost"] == []
    assert "Traceback" not in faults.out
    assert faults.code == 11


def test_a_candidate_that_crashes_in_a_round_is_an_error(repository):
    for options in ({}, {"fault": "exit", "stage": "measure", "spare": 1}):
        repository.suite(repository.faulty("faulty", **options))
        if not options:
            repository.commit()
    result = repository.compare("--mlbench-rounds=5")
    record = result.records["faulty"]
    assert (record.outcome, record.stage) == ("error", "measure")
    assert record.reason == "measure: the agent ended: exit status 3"
    assert f"error(measure): {CASE.format('faulty')}: the agent ended: exit status 3" in result.out
    assert result.code == 12


def test_ctrl_c_in_a_round_keeps_records_and_ends_both_agents(repository):
    for words in (["compared"], ["fresh", "compared", "after"]):
        repository.suite(*[repository.faulty(word, spin_us=200) for word in words])
        if len(words) == 1:
            repository.commit()
    running = repository.start("--mlbench-base=HEAD", *repository.QUICK)
    repository.wait_for_event("load", 4)
    running.signal(signal.SIGINT, group=True)
    result = running.wait(10)
    assert result.code == result.run.footer["exitstatus"] == pytest.ExitCode.INTERRUPTED
    assert {word: record.outcome for word, record in result.records.items()} == {"fresh": "pass"}
    assert not runfile.parts_dir(repository.run_file).exists()


# --- a machine that is not fit -------------------------------------------------------------------------------


def test_on_a_machine_that_is_too_uneven_no_round_is_taken(repository):
    repository.suite(repository.faulty("one"), repository.faulty("other"))
    repository.commit()
    result = repository.compare(repository.NO_ROUNDS)
    for word in ("one", "other"):
        (reason,) = reasons(result, word).values()
        assert re.match(r"timed blocks of a fixed loop differ by \S+ %, ceiling 0\.001 %; ", reason), reason
        assert f"invalid: {CASE.format(word)}:\ninvalid: latency.p50: {reason}" in result.out
        assert result.records[word].outcome == "invalid"
        assert result.records[word].base["control"]["burn_in_spread"] > 0.00001
    assert repository.count("load") == 2
    assert result.code == 11


def test_where_the_base_differs_from_itself_nothing_is_judged(repository):
    repository.suite(repository.faulty("faulty", spin_us=200))
    repository.commit()
    # The candidate's own process first, then pairs: of each the same side is slow, whichever begins.
    result = repository.compare("--mlbench-rounds=5", MLBENCH_FAULTY_SLOW_STARTS="0011")
    (reason,) = reasons(result).values()
    told = (
        r"this machine is not fit to judge: the base compared with itself differs: latency\.p50 is \S+ % \w+ \(.*\); "
    )
    assert re.match(told + "`mlbench doctor` tells what may disturb it", reason), reason
    control = result.records["faulty"].base["control"]
    assert control["case"] == CASE.format("faulty")
    assert control["comparisons"][0]["verdict"] in ("regressed", "improved")
    assert repository.count("load") == 1 + 2 * control["rounds"], "no round of the candidate was taken"
    assert result.records["faulty"].outcome == "invalid"
    assert result.code == 11


def test_sides_that_are_the_same_cannot_differ(repository):
    repository.suite(repository.faulty("faulty", spin_us=200))
    repository.commit()
    result = repository.compare("--mlbench-rounds=5", MLBENCH_FAULTY_SLOW_IN=str(repository.project))
    (reason,) = reasons(result).values()
    assert re.match(
        r"latency\.p50 is \S+ % slower \(.*\), although both sides are the same model, data, options", reason
    )
    assert result.records["faulty"].base["identical"] is True
    assert result.records["faulty"].outcome == "invalid"
    assert result.code == 11


# --- modules that are installed, too -------------------------------------------------------------------------


@pytest.fixture
def product(repository):
    """Return a function that writes a suite whose pre-processing imports `product`, and where that stands."""

    def write(where):
        for factor in (1, -1):
            path = repository.suite(benchmark='preprocess = "prepare:prepare"')
            (path.parent / "prepare.py").write_text(PREPARE, encoding="utf-8")
            written = write_package(repository.project / where, factor)
            if factor == 1:
                repository.commit()
        return written

    return write


def write_package(folder, factor):
    """Write the package `product` into a folder."""
    package = folder / "product"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(PRODUCT.format(factor), encoding="utf-8")
    return package / "__init__.py"


def compare_in(repository, site):
    """Compare, both sides in an environment of their own."""
    return repository.compare(repository.NO_ROUNDS, f"--mlbench-python=faulty={site.parents[2] / 'bin' / 'python'}")


@pytest.mark.parametrize("where", [".", "src"])
def test_each_side_loads_its_own_module_though_one_is_installed(repository, product, where):
    product(where)
    installed = write_package(repository.root / "installed", 1).parents[1]
    path = ":".join(map(str, [installed, repository.project / where, repository.env["PYTHONPATH"]]))
    result = repository.compare(repository.NO_ROUNDS, PYTHONPATH=path)
    told = result.records["faulty"].base["outputs"]
    assert re.fullmatch(r"y differs for 12 of 12 samples, by at most \d\.\d+", told), told


def test_an_installed_candidate_cannot_stand_for_the_base(repository, product):
    """As `pip install --editable` installs a package from a folder of its own."""
    file = product("packages/product")
    site = repository.environment()
    (site / "product.pth").write_text(f"{file.parents[1]}\n", encoding="utf-8")
    result = compare_in(repository, site)
    (reason,) = reasons(result).values()
    assert reason.startswith("the base must load its own modules, from ")
    assert f"but it loaded product from {file}: the candidate would be compared with itself" in reason
    assert result.records["faulty"].metric("latency.p50").value > 0, "what the candidate measured stands"
    assert result.records["faulty"].outcome == "invalid"
    assert result.code == 11


@pytest.mark.parametrize("where", ["packages/product", "src"])
def test_an_installed_copy_cannot_stand_for_both(repository, product, where):
    product(where)
    site = repository.environment()
    file = write_package(site, 1)
    if where == "src":  # which is looked in first, unless the module is there before any of ours
        (site / "product.pth").write_text("import product\n", encoding="utf-8")
    result = compare_in(repository, site)
    record = result.records["faulty"]
    told = f"the candidate must load its own modules, from {repository.project}, but it loaded product from {file}: "
    assert record.reason.startswith(told)
    assert f"invalid: {CASE.format('faulty')}:\n{told}" in result.out
    assert "Traceback" not in result.out
    assert record.outcome == "invalid"
    assert result.code == 11


def test_an_installed_module_in_which_the_sides_do_not_differ_is_no_copy(repository, product):
    product("packages/product")
    repository.commit()
    site = repository.environment()
    write_package(site, 1)
    result = compare_in(repository, site)
    assert result.records["faulty"].base["outputs"] == "identical"
    assert re.match("timed blocks of a fixed loop differ", reasons(result)["latency.p50"])
