"""How little memory the engine keeps: settings of the C library's allocator, and what is free goes back to the system.

Rows wait for the log, become Arrow pages and are gone again, by megabytes and from several threads. Left alone, glibc
keeps a heap a thread and Arrow a pool of its own, each as large as its busiest moment (bench/engine tells the sum).
"""

import ctypes
import logging
import sys
import threading
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa

logger = logging.getLogger(__name__)

# Names and numbers are those of glibc's malloc.h. A body and its answer are some hundred KB that come and go with every
# request: by default the system takes them back each time, and clears them anew. What is free goes back in `Keeper`.
OPTIONS = {"M_ARENA_MAX": (-8, 1), "M_TRIM_THRESHOLD": (-1, 2**26), "M_MMAP_THRESHOLD": (-3, 2**25)}
TRIM_SECONDS = 10.0  # a trim of a busy heap takes a few milliseconds


class WithoutPandas(MetaPathFinder):
    """Makes this process one without pandas. Python steps are processes of their own, and may have it.

    Where it is installed, pyarrow loads it with the first array that it makes, to know its types: 45 MiB for nothing.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing of any other module. Raises ModuleNotFoundError for pandas."""
        if fullname == "pandas":
            raise ModuleNotFoundError("The engine's process does without pandas.", name=fullname)
        return None


def be_frugal() -> None:
    """One heap for all threads, Arrow's buffers in it too, and no pandas. To be called before threads are started.

    Python's lock lets one thread at a time allocate most of what there is, so they do not wait for each other.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, WithoutPandas())
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc has it, other C libraries may not
    for name, (option, value) in OPTIONS.items():
        if mallopt is not None and not mallopt(option, value):
            logger.debug("the C library does not take %s", name)


def give_back() -> None:
    """Return the free pages of the heap to the system, where the C library can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # without Python's lock: requests go on


class Keeper:
    """Gives back what is free, every few seconds, in a thread of its own."""

    def __init__(self, seconds: float = TRIM_SECONDS) -> None:
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            give_back()
