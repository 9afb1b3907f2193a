"""Measurements of the whole program: `pocketvlm bench`. Imported only when a bench command is asked for."""

if __name__ != "pocketvlm.benchmarks":
    raise ImportError(
        f"this folder is the package pocketvlm.benchmarks, not {__name__!r}: "
        "install the project (pip install .) and import that"
    )
