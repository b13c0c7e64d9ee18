"""Models that are Python classes: each in a process of its own, with limits, started again when it dies."""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from opsengine import pypackage, pyworker
from opsengine.connections import Tensor
from opsengine.errors import PipelineError, RequestError
from opsengine.fields import Array, Field
from opsengine.runtime import Input, Output

logger = logging.getLogger(__name__)

START_SECONDS = 60.0  # to import what the class needs
BUSY_SECONDS = 1.0  # a request waits this long for the one before it: then other requests need the thread
LARGEST_ANSWER = 2**30
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")  # never the engine's secrets


class _Died(Exception):
    """The process ended, or did not answer in time."""

    def __init__(self, why: str, status: int = 500) -> None:
        super().__init__(why)
        self.status = status


class _Worker:
    """One process."""

    def __init__(self, manifest: pypackage.Manifest, folder: Path) -> None:
        self._manifest = manifest
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", pyworker.__file__, str(folder), manifest.module, manifest.class_name]
        single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | single | {"HOME": str(folder)}
        with theirs:
            self.process = subprocess.Popen(
                [*command, str(manifest.memory_mib), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # the step's own prints go to stderr, the engine's log
                pass_fds=[theirs.fileno()],
                env=env,
                start_new_session=True,  # a Ctrl-C in the engine's terminal is for the engine to handle
            )
        self._connection = ours
        self._is_ready = False

    def ready(self) -> None:
        """Wait until the class is loaded. Raises PipelineError if it cannot be, _Died."""
        if self._is_ready:
            return
        header, _ = self._receive(time.monotonic() + START_SECONDS)
        if "error" in header:
            raise PipelineError(str(header["error"])[:500])
        self._is_ready = True

    def call(self, columns: Mapping[str, Array]) -> tuple[dict[str, Any], bytearray]:
        """Send the columns, return the answer. Raises _Died."""
        deadline = time.monotonic() + self._manifest.timeout_seconds
        try:
            for piece in pyworker.pack({}, dict(columns)):
                self._connection.settimeout(max(0.001, deadline - time.monotonic()))
                self._connection.sendall(piece)
        except TimeoutError:
            raise self._too_late() from None
        except OSError:
            raise self._gone() from None
        return self._receive(deadline)

    def _receive(self, deadline: float) -> tuple[dict[str, Any], bytearray]:
        try:
            head, body = pyworker.LENGTHS.unpack(self._exactly(pyworker.LENGTHS.size, deadline))
            if head + body > LARGEST_ANSWER:
                raise _Died(f"it answered more than {LARGEST_ANSWER} bytes")
            header = orjson.loads(bytes(self._exactly(head, deadline)))
            return header, self._exactly(body, deadline)
        except TimeoutError:
            raise self._too_late() from None
        except (EOFError, OSError):
            raise self._gone() from None
        except orjson.JSONDecodeError:
            raise _Died("what it answered cannot be read") from None

    def _exactly(self, size: int, deadline: float) -> bytearray:
        self._connection.settimeout(max(0.001, deadline - time.monotonic()))
        return pyworker.receive(self._connection, size)

    def _too_late(self) -> _Died:
        return _Died(f"it did not answer within {self._manifest.timeout_seconds:g} s", 504)

    def _gone(self) -> _Died:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)
        return _Died(self.end)

    @property
    def end(self) -> str:
        """How the process ended."""
        return f"its process ended (exit code {self.process.returncode})"

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(5)


class PythonModel:
    """A Python step (docs/pipelines.md). Safe for several threads; they take turns. `unpacked`: where its folder is."""

    def __init__(self, path: Path, name: str, unpacked: Path) -> None:
        self.name = name
        self._manifest = pypackage.read(path, name)
        self.inputs = tuple(_input(tensor) for tensor in self._manifest.inputs)
        self.outputs = tuple(_output(tensor) for tensor in self._manifest.outputs)
        folder = _fresh_folder(unpacked)
        try:
            pypackage.unpack(path, folder)
        except BaseException:  # a disk that is full: what is there of it must not fill it for the next try
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._folder = folder
        self._turn = threading.Lock()
        self._held: list[_Worker] = []
        self._failed = "its process was not started yet"
        weakref.finalize(self, _clean_up, self._held, folder)

    @property
    def fault(self) -> str | None:
        """Why it has no process, None while it has one. One that ended is started again by the next request."""
        held = self._held[:1]  # a copy: another thread may be ending it
        if not held:
            return self._failed
        return None if held[0].process.poll() is None else held[0].end

    def warm(self) -> None:
        """Start the process and load the class. Raises PipelineError if that fails."""
        try:
            with self._turn:
                self._worker().ready()
        except (PipelineError, _Died) as error:
            self._end()
            raise PipelineError(f"Model {self.name} cannot be loaded: {error}.") from None

    def run(self, columns: Mapping[str, Array]) -> dict[str, Field]:
        """Outputs by name, one row for each row of `columns`.

        Raises RequestError: 400 where the class refuses the values (ValueError), 500 where it fails or dies, 504 where
        it takes too long, 503 while another request keeps it busy. After a death the next request has a new process.
        """
        count = len(next(iter(columns.values())))
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise RequestError(f"Model {self.name} is busy: try again in a moment.", 503, (("Retry-After", "1"),))
        try:
            worker = self._worker()
            worker.ready()
            header, body = worker.call(columns)
        except (_Died, PipelineError) as error:
            self._failed = str(error)
            self._end()
            logger.error("Python model %s: %s; it is started again", self.name, error)
            status = error.status if isinstance(error, _Died) else 500
            raise RequestError(f"Model {self.name} failed: {error}.", status) from None
        finally:
            self._turn.release()
        return self._outputs(header, body, count)

    def _worker(self) -> _Worker:
        if self.fault is not None:  # not started yet, or killed since: the system does that where memory is short
            self._end()
            self._held.append(_Worker(self._manifest, self._folder))
        return self._held[0]

    def _end(self) -> None:
        while self._held:
            self._held.pop().close()

    def _outputs(self, header: dict[str, Any], body: bytearray, count: int) -> dict[str, Field]:
        if "refused" in header:
            raise RequestError(f"Model {self.name} refused the values: {header['refused']}.")
        if "error" in header:
            raise RequestError(f"Model {self.name} failed: {header['error']}.", 500)
        try:
            made = pyworker.unpack(header, body)
        except (ValueError, KeyError, TypeError):
            raise RequestError(f"Model {self.name} failed: its answer cannot be read.", 500) from None
        return {node.name: self._output(node, made, count) for node in self.outputs}

    def _output(self, node: Output, made: dict[str, Any], count: int) -> Field:
        array = made.get(node.name)
        if array is None:
            raise RequestError(f"Model {self.name} gave no output {node.name}, which its manifest names.", 500)
        is_text = array.dtype.kind == "O"
        if is_text != (node.dtype.kind == "O") or not (is_text or np.can_cast(array.dtype, node.dtype, "same_kind")):
            raise RequestError(f"Model {self.name} gave {node.name} as {array.dtype}, not {node.dtype}.", 500)
        wanted, row = node.shape or (), array.shape[1:]
        fits = len(row) == len(wanted) and all(want in (None, have) for want, have in zip(wanted, row, strict=True))
        if not array.ndim or len(array) != count or not fits:
            raise RequestError(
                f"Model {self.name} gave {node.name} of shape {list(array.shape)}, not {[count, *wanted]}.", 500
            )
        text: list[object] = array.tolist() if is_text else []
        return text if is_text else array.astype(node.dtype, copy=False)


def _input(tensor: Tensor) -> Input:
    return Input(tensor.name, _dtype(tensor), tensor.shape or (), None)


def _output(tensor: Tensor) -> Output:
    return Output(tensor.name, _dtype(tensor), tensor.shape)


def _dtype(tensor: Tensor) -> np.dtype[np.generic]:
    return np.dtype("O") if tensor.type == "string" else np.dtype(tensor.type)


_cleared: set[Path] = set()


def _fresh_folder(parent: Path) -> Path:
    """A new folder to unpack to. The first of a process removes what killed ones left."""
    parent.mkdir(parents=True, exist_ok=True)
    if parent not in _cleared:
        _cleared.add(parent)
        for left in parent.iterdir():
            if not _is_alive(left.name.split("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))


def _is_alive(pid: str) -> bool:
    """Whether another process of this number runs; our own number on a folder is that of one before a restart."""
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


def _clean_up(held: list[_Worker], folder: Path) -> None:
    while held:
        held.pop().close()
    shutil.rmtree(folder, ignore_errors=True)
