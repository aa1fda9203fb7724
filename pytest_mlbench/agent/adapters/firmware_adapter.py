"""Drive the kernels built into a board, over its line; the framework `firmware`. See agent/api.py.

Two of the options are not the suite's: `connection`, how the board is reached (its keys are those of
tiny_protocol.LineSettings, `transport`, `emulated`, `echo`, and what the transport takes), and `sidecar`, the text
beside the image that says what goes in and comes out (frameworks/firmware.py). `path` is the image, "" when the board
runs what it has.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..api import Node, Placement, TargetClock, TensorSpec
from ..board import BoardError, WrongBoard, open_transport
from ..recovery import Recovery, Rung
from ..samples import Refused
from ..tiny_models import MODELS
from ..tiny_protocol import Identity, Inferred, LineSettings, ReplyError, TinyLine
from ..transcript import Transcript
from .binding import check_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_ROUNDING = 1.05e-3  # a result has 3 decimals, which some boards cut off instead of rounding
_CLOCK_SLACK = 1.05  # how much faster than ours a board's clock may run
_CLOCK_SLACK_NS = 5_000_000


def versions() -> dict[str, str]:
    """Return nothing: what the firmware is, only an open board can tell (`target.board` of the record)."""
    return {}


def load(path: str, options: Mapping[str, Any]) -> FirmwareSession:
    """Reach the board, flash the image if there is one, and make sure that it holds the model."""
    connection = options.get("connection") or {}
    transcript = Transcript(echo=bool(connection.get("echo")))
    session = FirmwareSession(connection, transcript)
    try:
        session.start(path, json.loads(options.get("sidecar") or "{}"), str(options.get("model_id") or ""))
    except BaseException as error:
        session.close()
        if isinstance(error, BoardError):
            error.transcript, error.happened = transcript.text(), session.happened
        raise
    return session


class FirmwareSession:
    """One board with a model in it. Its own clock times the calls."""

    def __init__(self, connection: Mapping[str, Any], transcript: Transcript) -> None:
        self.transcript = transcript
        self.inputs: list[TensorSpec] = []
        self.outputs: list[TensorSpec] = []
        self.stages_ns: dict[str, int] = {}
        self.clock = TargetClock("", 0)
        self._connection = connection
        self._settings = LineSettings.of(connection)
        self._transport: Any = None
        self._line: TinyLine | None = None
        self._identity: Identity | None = None
        self._described: dict[str, Any] = {}
        self._recovery = Recovery((), lambda: None, transcript)
        self._nodes: tuple[Node, ...] = ()
        self._data = b""
        self._is_loaded = False
        self._results: tuple[float, ...] = ()

    @property
    def happened(self) -> list[dict[str, Any]]:
        """Return the steps of recovery so far, in order."""
        return self._recovery.happened

    def facts(self) -> dict[str, Any]:
        """Return what identifies the board, and what it took to keep it going."""
        identity = vars(self._identity) if self._identity is not None else {}
        return {**self._described, **identity, "mode": self._settings.mode, "recovered": list(self.happened)}

    # --- start -----------------------------------------------------------------------------------------

    def start(self, path: str, sidecar: Mapping[str, Any], model_id: str) -> None:
        """Open, flash, identify; the model's tensors are known afterwards."""
        begin = time.perf_counter_ns()
        self._transport = open_transport(self._connection)
        self._line = TinyLine(self._transport, self._settings, self.transcript)
        connected = time.perf_counter_ns()
        if path:
            self.transcript.note("flash the image")
            self._transport.flash(path)
            self.stages_ns["flash"] = time.perf_counter_ns() - connected
        self._recovery = Recovery(self._rungs(), self._settle, self.transcript)
        opened = time.perf_counter_ns()
        self._identity = self._recovery.run("connect", self._line.open)
        self.stages_ns["connect"] = time.perf_counter_ns() - opened + connected - begin
        self.clock = self._recovery.run("read the clock", self._read_clock)
        self._described = dict(self._transport.describe())
        self.inputs, self.outputs, self._nodes = tensors(sidecar, self._identity.model)
        wanted = model_id or sidecar.get("model") or self._identity.model
        if self._identity.model != wanted:
            flashed = "after flashing" if path else "and was not flashed"
            raise WrongBoard(
                f"the board says that it holds the model '{self._identity.model}' {flashed}, expected '{wanted}': "
                "give the image of this model, or correct `model` in its sidecar or the option `model_id`"
            )

    def _read_clock(self) -> TargetClock:
        if self._settings.mode == "energy":
            reason = "in energy mode a board gives its timestamps as edges on a pin; only a power meter sees them"
            return TargetClock("timestamp pin of the board", 0, reason)
        assert self._line is not None
        return TargetClock("m-lap of the board", self._line.tick_ns())

    def _rungs(self) -> list[Rung]:
        def reopen() -> None:
            self._transport.close()
            self._transport = open_transport(self._connection)
            assert self._line is not None
            self._line.use(self._transport)

        def level(name: str) -> Rung:
            return Rung(name, lambda: self._transport.recover(name))

        levels = [level(name) for name in self._transport.levels]
        # Another transport opens what it made itself, an emulator with its image: it has levels for that.
        anew = [] if self._connection.get("transport") else [Rung("reopen", reopen)]
        return [Rung("resync", lambda: None), *anew, *levels]

    def _settle(self) -> None:
        """Make sure after a step that the same board with the same model answers; its input is gone."""
        self._is_loaded = False
        assert self._line is not None
        found = self._line.open()
        if self._identity is not None and found != self._identity:
            raise WrongBoard(f"after recovery the board says {found}, before it said {self._identity}")

    # --- calls -----------------------------------------------------------------------------------------

    def bind(self, inputs: dict[str, np.ndarray[Any, Any]]) -> None:
        """Load the input into the board."""
        check_inputs(self.inputs, inputs)
        self._data = np.ascontiguousarray(inputs[self.inputs[0].name]).tobytes()
        self._is_loaded = False
        self._run("load input", self._load)

    def invoke(self) -> None:
        """Compute once."""
        self._infer(1)

    def time_calls(self, calls: int) -> int:
        """Compute `calls` times and return the nanoseconds by the board's clock."""
        lap_ns = self._infer(calls).lap_ns
        if lap_ns is None:
            raise Refused(self.clock.reason)
        return lap_ns

    def fetch(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the results of the last call as the board printed them."""
        spec = self.outputs[0]
        try:
            return {spec.name: snapped(self._results, spec)}
        except BoardError as error:
            error.transcript, error.happened = self.transcript.text(), self.happened
            raise

    def placement(self) -> Placement:
        """Tell what the image's maker says of its kernels; a board tells nothing."""
        source = "the image's sidecar, as its maker declares"
        if self._nodes:
            return Placement(source, self._nodes)
        return Placement(source, reason="a board does not tell what it runs, and the sidecar has no `nodes`")

    def close(self) -> None:
        """Let go of the board."""
        if self._transport is not None:
            self._transport.close()

    def _load(self) -> None:
        assert self._line is not None
        if not self._is_loaded:
            self._line.load(self._data)
            self._is_loaded = True

    def _infer(self, calls: int) -> Inferred:
        def work() -> Inferred:
            assert self._line is not None
            self._load()
            begin = time.perf_counter_ns()
            found = self._line.infer(calls)
            self._check(found, time.perf_counter_ns() - begin)
            return found

        found = self._run("infer", work)
        self._results = found.results
        return found

    def _check(self, found: Inferred, ours_ns: int) -> None:
        """Refuse an answer that cannot be: too few results, or more time than passed."""
        wanted = math.prod(self.outputs[0].shape)
        if len(found.results) != wanted:
            raise ReplyError(
                f"the board gave {len(found.results)} results, expected {wanted} ({self.outputs[0].name} "
                f"{list(self.outputs[0].shape)})"
            )
        if found.lap_ns is None or self._connection.get("emulated"):
            return
        if found.lap_ns > ours_ns * _CLOCK_SLACK + _CLOCK_SLACK_NS:
            raise ReplyError(
                f"by its own clock the board took {found.lap_ns / 1e6:.3f} ms for what took {ours_ns / 1e6:.3f} ms "
                "here: its counter was reset, or counts in another unit than it says"
            )

    def _run(self, what: str, work: Callable[[], T]) -> T:
        try:
            return self._recovery.run(what, work)
        except BoardError as error:
            error.transcript, error.happened = self.transcript.text(), self.happened
            raise


# --- tensors ------------------------------------------------------------------------------------------------


def tensors(sidecar: Mapping[str, Any], model_id: str) -> tuple[list[TensorSpec], list[TensorSpec], tuple[Node, ...]]:
    """Return inputs, outputs and nodes of a sidecar, or of the MLPerf Tiny model that the board names.

    Raises Refused, with the key, for a sidecar that does not say them.
    """
    if not sidecar:
        if model_id not in MODELS:
            raise Refused(
                f"nothing says what the board's model '{model_id}' takes and gives: put a sidecar beside its image "
                f"(inputs, outputs), or use one of MLPerf Tiny's models ({', '.join(MODELS)})"
            )
        given, made = MODELS[model_id]
        return [given], [made], ()
    found = []
    for key in ("inputs", "outputs"):
        entries = sidecar.get(key)
        if not isinstance(entries, list) or len(entries) != 1:
            raise Refused(f"the image's sidecar: `{key}` must be a list of one tensor, which is what the protocol has")
        found.append([_tensor(entries[0], f"{key}[0]")])
    nodes = tuple(_node(entry, f"nodes[{index}]") for index, entry in enumerate(sidecar.get("nodes") or ()))
    return found[0], found[1], nodes


def _tensor(entry: Any, key: str) -> TensorSpec:
    try:
        scale = entry.get("scale")
        return TensorSpec(
            str(entry["name"]),
            np.dtype(entry["dtype"]).name,
            tuple(int(size) for size in entry["shape"]),
            None if scale is None else float(scale),
            int(entry.get("zero_point") or 0),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Refused(
            f"the image's sidecar: {key}: {type(error).__name__}: {error}; expected name, dtype, shape (whole "
            "numbers), and for quantised values scale and zero_point"
        ) from None


def _node(entry: Any, key: str) -> Node:
    try:
        return Node(
            str(entry["name"]), str(entry["op"]), "board", str(entry["precision"]), bool(entry.get("compute", True))
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise Refused(f"the image's sidecar: {key}: {error}; expected name, op and precision") from None


def snapped(results: tuple[float, ...], spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Return results as the output holds them: the nearest stored value when it is quantised, else float32.

    Three decimals tell neighbours apart when the scale is 0.001 or more; a result that lies further from every
    stored value than its rounding explains raises ReplyError, since then it is not of this scale.
    """
    real = np.array(results, np.float64).reshape(spec.shape)
    if spec.scale is None:
        return real.astype(np.float32)
    limits = np.iinfo(np.dtype(spec.dtype))
    real[~np.isfinite(real)] = np.finfo(np.float32).max  # of no scale: told below
    stored = np.rint(real / spec.scale) + spec.zero_point
    off = np.abs((stored - spec.zero_point) * spec.scale - real)
    outside = np.abs(real) > spec.scale * float(limits.max - limits.min + abs(spec.zero_point))
    if outside.any() or float(off.max(initial=0.0)) > _ROUNDING:
        raise ReplyError(
            f"results {results[:4]}... are no multiples of the scale {spec.scale:g} of output '{spec.name}': "
            "is the sidecar that of the image?"
        )
    found: np.ndarray[Any, Any] = np.clip(stored, limits.min, limits.max).astype(spec.dtype)
    return found
