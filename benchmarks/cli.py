"""The `pocketvlm bench` command line; each measurement lives in its own module."""

from __future__ import annotations

import argparse

from . import memory


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add the bench commands below `parser`; each sets `func(args) -> exit code`."""
    commands = parser.add_subparsers(title="measurements", metavar="COMMAND", required=True)
    memory.add_arguments(
        commands.add_parser(
            "memory",
            help="peak memory of one description, measured from outside",
            description="Run `pocketvlm describe` in a child process and measure its peak memory.",
        )
    )


def main(argv: list[str] | None = None) -> int:
    """Run one bench command: its exit code. Errors are raised; `pocketvlm` prints them."""
    parser = argparse.ArgumentParser(prog="pocketvlm bench")
    add_commands(parser)
    args = parser.parse_args(argv)
    exit_code: int = args.func(args)
    return exit_code
