"""The process of a Python step. Runs by itself: it imports nothing of the engine, and the engine reads from it only
names, numbers and text.

    python -P pyworker.py FOLDER MODULE CLASS MEMORY_MIB SOCKET

A message is a header's length and a body's length, the header (JSON), and the body (the arrays' bytes one after
another; text travels in the header).
"""

import importlib
import json
import logging
import os
import resource
import socket
import struct
import sys
import threading
import time
from typing import Any

import numpy as np

logger = logging.getLogger("python-step")

LENGTHS = struct.Struct("<IQ")


def receive(connection: socket.socket, size: int) -> bytearray:
    """Exactly `size` bytes. Raises EOFError when the other side is gone."""
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        got = connection.recv_into(view[at:])
        if not got:
            raise EOFError
        at += got
    return data


def pack(header: dict[str, Any], arrays: dict[str, Any]) -> list[bytes]:
    """A message as pieces to send."""
    told, body = [], []
    for name, array in arrays.items():
        entry = {"name": name, "dtype": array.dtype.str, "shape": array.shape}
        if array.dtype.kind == "O":
            entry["text"] = array.reshape(-1).tolist()
        else:
            body.append(np.ascontiguousarray(array).tobytes())
        told.append(entry)
    head = json.dumps({**header, "arrays": told}).encode()
    return [LENGTHS.pack(len(head), sum(map(len, body))), head, *body]


def unpack(header: dict[str, Any], body: bytes | bytearray) -> dict[str, Any]:
    """The arrays of a message. Raises ValueError, KeyError or TypeError where header and body do not fit together."""
    arrays, at = {}, 0
    for entry in header["arrays"]:
        dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
        if dtype.kind == "O":
            array = np.empty(len(entry["text"]), dtype=object)
            array[:] = [str(text) for text in entry["text"]]
        else:
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            array = np.frombuffer(body, dtype, count=size // dtype.itemsize, offset=at)
            at += size
        arrays[entry["name"]] = array.reshape(shape)
    return arrays


def _limit_memory(mib: int) -> None:
    """The step may take `mib` beyond what interpreter and numpy have mapped already."""
    try:
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        mapped = 2**30
    limit = mapped + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch_parent(parent: int) -> None:
    """End with the engine, even when it is killed while the step computes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}".rstrip(": ")


def _answer(model: Any, inputs: dict[str, Any]) -> list[bytes]:
    try:
        made = model.predict(inputs)
        if not isinstance(made, dict):
            return pack({"error": f"predict gave a {type(made).__name__}, not a dict of arrays"}, {})
        return pack({}, {str(name): _array(value) for name, value in made.items()})
    except ValueError as error:  # the documented way to refuse what the caller sent
        logger.info("refused: %s", error)
        return pack({"refused": str(error)[:300] or "the values cannot be used"}, {})
    except MemoryError:
        return pack({"error": "it needs more memory than its memory_mib"}, {})
    except Exception as error:
        logger.exception("predict failed")
        return pack({"error": _said(error)}, {})


def _array(value: Any) -> Any:
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "US" else array


def main(folder: str, module: str, class_name: str, memory_mib: str, descriptor: str) -> None:
    """Load the class, say so, then answer until the engine closes the socket."""
    logging.basicConfig(level=logging.INFO)
    os.dup2(2, 1)  # what the step prints goes to the engine's log, line by line: in the end the process is killed
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # it is the interpreter's own
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
    connection = socket.socket(fileno=int(descriptor))
    sys.path[:0] = [folder, os.path.join(folder, "vendor")]
    os.chdir(folder)
    _limit_memory(int(memory_mib))
    try:
        model = getattr(importlib.import_module(module), class_name)()
    except (Exception, SystemExit) as error:
        logger.exception("the class cannot be loaded")
        connection.sendall(b"".join(pack({"error": _said(error)}, {})))
        return
    connection.sendall(b"".join(pack({"ready": True}, {})))
    while True:
        head, body = LENGTHS.unpack(receive(connection, LENGTHS.size))
        header = json.loads(receive(connection, head))
        for piece in _answer(model, unpack(header, receive(connection, body))):
            connection.sendall(piece)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (EOFError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)
