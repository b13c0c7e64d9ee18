"""The process in which atheris (libFuzzer) feeds a target; `bench.fuzz` starts it: TARGET, then libFuzzer's options.

atheris has to see the engine's modules when they are first imported, to count which lines and comparisons an input
reaches: so this process does nothing else.
"""

import sys

import atheris

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
