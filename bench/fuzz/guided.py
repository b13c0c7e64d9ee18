"""The process in which atheris (libFuzzer) feeds a target; `bench.fuzz` starts it: TARGET, then libFuzzer's options.

atheris has to see the engine's modules when they are first imported, to count which lines and comparisons an input
reaches: so this process does nothing else.
"""

import ctypes
import os
import sys

import atheris

SAME_ADDRESSES, ASK = 0x0040000, 0xFFFFFFFF  # personality(2): ADDR_NO_RANDOMIZE, and the question what is set


def keep_addresses():
    """Begin again with the same addresses in every run, for what is hashed by them; go on where that is forbidden."""
    libc = ctypes.CDLL(None)
    now = libc.personality(ASK)
    if not now & SAME_ADDRESSES and libc.personality(now | SAME_ADDRESSES) != -1:
        os.execv(sys.executable, [sys.executable, "-m", "bench.fuzz.guided", *sys.argv[1:]])


keep_addresses()
with atheris.instrument_imports(include=["opsengine"], enable_loader_override=False):
    from bench.fuzz import targets


def main():
    """Does not return: libFuzzer ends the process, with 0 when all inputs were harmless."""
    target, mutated = targets.make(sys.argv[1]), targets.mutated(sys.argv[1])
    more = {"custom_mutator": lambda data, limit, seed: mutated(data, limit, seed, atheris.Mutate)} if mutated else {}
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target, **more)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
