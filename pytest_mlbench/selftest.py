"""`mlbench doctor --self-test`: does the gate, on this machine and now, stay green and turn red when it must?"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_mlbench import fitness, lease, screening
from pytest_mlbench.compare import Question
from pytest_mlbench.devices.cpu import Cpu
from pytest_mlbench.execute import Executor
from pytest_mlbench.frameworks.api import Framework, Option
from pytest_mlbench.matrix import Case
from pytest_mlbench.metrics import latency
from pytest_mlbench.preparation import Preparation
from pytest_mlbench.record import Comparison
from pytest_mlbench.registry import Registry
from pytest_mlbench.rounds import Pairing
from pytest_mlbench.spec import (
    BenchmarkSpec,
    DatasetSpec,
    FrameworkSpec,
    ModelSpec,
    Regression,
    ScenarioSpec,
    SuiteSpec,
)

EXTRA_EVERY = 33  # one call in 33 computes twice: 3 % slower
LEASE_S = 60.0
SECONDS = 10.0
_FAMILY = 12  # comparisons in one session: what eight confirming rounds are enough for
_HERE = Path(__file__)

ARITHMETIC = Framework(
    name="arithmetic",
    format="none",
    adapter="pytest_mlbench.agent.adapters.arithmetic_adapter",
    module="numpy",
    install="pip install numpy",
    options={
        "every": Option(int, "Which calls may compute once more.", minimum=1, default=EXTRA_EVERY),
        "extra": Option(bool, "Whether they do.", default=False),
    },
)


@dataclass(frozen=True)
class Trial:
    """One comparison whose right answer is known."""

    name: str
    expected: str  # the verdict, or "not regressed"
    comparison: Comparison

    @property
    def is_right(self) -> bool:
        """Tell whether the gate said what it should have."""
        verdict = self.comparison.verdict
        return verdict == self.expected if self.expected == "regressed" else verdict in ("pass", "inconclusive")


@dataclass(frozen=True)
class SelfTest:
    """What the self-test found, and how long it took."""

    trials: tuple[Trial, ...]
    seconds: float
    why: str  # what may have led the gate astray, "" when it was right

    @property
    def is_right(self) -> bool:
        """Tell whether the gate was right in every trial."""
        return all(trial.is_right for trial in self.trials)

    def to_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        told = [{"name": one.name, "expected": one.expected, **asdict(one.comparison)} for one in self.trials]
        return {"right": self.is_right, "seconds": self.seconds, "why": self.why, "trials": told}

    def lines(self) -> list[str]:
        """Return two lines a trial, and whether the gate can be believed."""
        told = []
        for trial in self.trials:
            answer = "ok" if trial.is_right else "WRONG"
            told.append(f"self-test {trial.name}: {trial.comparison.verdict}, expected {trial.expected}: {answer}")
            told.append(f"  {trial.comparison.reason}, {trial.comparison.n} rounds")
        if self.is_right:
            return [*told, f"the gate can be believed on this machine now ({self.seconds:.0f} s)"]
        return [*told, f"do not believe the gate on this machine now: {self.why}"]


def case(extra: bool, every: int = EXTRA_EVERY) -> Case:
    """Return the case of the built-in net, with `extra` slowed down by one call more in `every`."""
    framework = FrameworkSpec("arithmetic", "arithmetic", {"every": every, "extra": extra})
    model = ModelSpec("net")
    data = DatasetSpec("generated", generate="normal", count=16)
    benchmark = BenchmarkSpec("selftest", ("net",), (framework,), ("fp32",), ("cpu",), dataset="generated")
    suite = SuiteSpec("selftest", _HERE, {"net": model}, {"generated": data}, (benchmark,))
    scenario = ScenarioSpec(warmup_s=0.05)
    return Case(suite, benchmark, model, framework, "fp32", "cpu", 1, None, scenario, "net-arithmetic-fp32-cpu")


def run(progress: Callable[[str], None], seed: int | None = None) -> SelfTest:
    """Compare the net with itself, and with itself slowed by 3 %, as the gate would; StageError when it cannot.

    Margin 0 is the hardest: any difference that is confirmed counts.
    """
    seed, begin = time.time_ns() if seed is None else seed, time.monotonic()
    found: list[Trial] = []
    with lease.hold(("cpu",), timeout_s=LEASE_S, waiting=progress):
        for name, expected, extra in (("A/A", "not regressed", False), ("3 % slower", "regressed", True)):
            progress(f"{name} ...")
            found.append(Trial(name, expected, compared(case(False), case(extra), random.Random(f"{seed} {name}"))))
    why = ""
    if not all(trial.is_right for trial in found):
        uneven = fitness.noise_reason(fitness.burn_in())
        why = uneven or "a fixed loop runs evenly, so look for what comes and goes among the findings above"
    return SelfTest(tuple(found), time.monotonic() - begin, why)


def compared(base: Case, candidate: Case, rng: random.Random) -> Comparison:
    """Return the gate's comparison of two cases of the built-in net, by p50 and without a margin."""
    plan = screening.plan(_FAMILY)
    question = Question("latency.p50", "ns", "lower", Regression(0.0), plan.alpha, plan.resolution, plan.confirm)
    pairing = Pairing(
        _executor(base),
        _executor(candidate),
        ("latency.p50",),
        {"latency": latency.measure},
        rng,
        SECONDS,
        plan.rounds,
        calls=EXTRA_EVERY,  # in one sample: each then holds one extra call, as a real slowdown is in each
    )
    _, comparisons = screening.decided(pairing, {"latency.p50": question}, plan.confirm)
    return comparisons["latency.p50"]


def _executor(of: Case) -> Executor:
    # The net is its own "file": there is none to load, and hashes are of the code.
    return Executor(Preparation(of, ARITHMETIC, Cpu(), model=_HERE), Registry())
