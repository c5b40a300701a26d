"""The command ``ggblock``: a group that imports a command only when it is invoked, and turns failures into one line.

Exit codes: 0; 1 a named failure; 2 wrong usage; 130 interrupted.
"""
from __future__ import annotations

import _thread
import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import click

from ggblock._version import __version__
from ggblock.cli.commands import COMMANDS
from ggblock.errors import GgblockError


class LazyGroup(click.Group):
    """A group whose commands are rows of ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short_help) for name, (_, short_help) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every foreseen failure ends here as one line on stderr and an exit code."""
        try:
            with interrupts_alone():
                result = super().invoke(ctx)
                sys.stdout.flush()
            return result
        except GgblockError as error:
            fail(str(error))
        except KeyboardInterrupt:
            fail("interrupted", exit_code=130)
        except BrokenPipeError:
            stop_quietly()
        except OSError as error:
            if error.errno == errno.EPIPE:
                stop_quietly()
            where = f"{error.filename}: " if error.filename else ""
            fail(f"{where}{error.strerror or error}")
        except MemoryError as error:
            fail(f"out of memory: {error}" if str(error) else "out of memory")


@contextlib.contextmanager
def interrupts_alone() -> Iterator[None]:
    """Ctrl-C is the only thing that Ctrl-C tells of.

    It may strike in the middle of a library's constructor; that object's ``__del__`` then fails, which Python reports
    with a traceback of its own. From the interrupt on these reports are left out. One that strikes within a
    ``__del__`` would itself be such a report, and lost: it is raised once more.
    """
    is_main = threading.current_thread() is threading.main_thread()  # no other is interrupted, nor may set handlers
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # ignored (a job in the background), or the caller's own
        return

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):  # raised in here, it would be lost again
            again = threading.Timer(0.01, _thread.interrupt_main)
            again.daemon = True
            again.start()

    def handler(*_: object) -> NoReturn:
        sys.unraisablehook = hook
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # not the hook: what was struck may go later


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Print one line on stderr and exit."""
    line = " ".join(message.split("\n"))
    click.echo(f"ggblock: {line}", err=True)
    raise SystemExit(exit_code)


def stop_quietly() -> NoReturn:
    """The reader of our output has gone: exit without a word.

    The standard output then points nowhere, so that Python's own flush at exit does not complain.
    """
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        pass
    raise SystemExit(1)


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Show a library's warning as one line on stderr, as ``warnings.showwarning``."""
    click.echo(f"ggblock: warning: {' '.join(str(message).split())}", err=True)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example:  ggblock run smollm2-135m-instruct -p 'Why is the sky blue?'",
)
@click.version_option(__version__, prog_name="ggblock", message="%(prog)s %(version)s")
def main() -> None:
    """Run block-quantized language models (GGUF) on this CPU, and look inside them.

    MODEL is a path or the name of a catalog model, which is fetched once.
    """
    warnings.showwarning = show_warning
    context = click.get_current_context(silent=True)
    if context is not None and (os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"):
        context.color = False  # no-color.org; click itself asks only whether there is a terminal
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a terminal that cannot show a character shows "?" in its place
            reconfigure(errors="replace")
