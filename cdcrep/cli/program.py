"""The program's frame: its commands, the options that all share, and what becomes of errors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

from cdcrep import __version__
from cdcrep.cli.check import check
from cdcrep.cli.demo import demo
from cdcrep.cli.init import init
from cdcrep.cli.output import Invocation, give_up_standard_output, leave, report
from cdcrep.cli.query import query
from cdcrep.cli.run import backfill, run
from cdcrep.cli.status import status
from cdcrep.cli.teardown import teardown

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count
READER_GONE: Final = 141  # 128 + SIGPIPE


class Program(click.Group):
    """A group whose commands take `-v` and `--log-format` too, wherever the user writes them."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command with the shared options."""
        cmd.params.extend(_shared_options())
        super().add_command(cmd, name)


def _shared_options() -> list[click.Option]:
    return [
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            callback=_remember_verbose,
            help="Log more, and show where an error came from.",
        ),
        click.Option(
            ["--log-format"],
            type=click.Choice(["auto", "text", "json"]),
            expose_value=False,
            callback=_remember_format,
            help="How to log on standard error; auto: for people on a terminal, text lines elsewhere.",
        ),
    ]


def _remember_verbose(context: click.Context, _option: click.Parameter, value: bool) -> None:
    context.ensure_object(Invocation).verbose |= value


def _remember_format(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Invocation).log_format = value


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="cdcrep")
def program() -> None:
    """Copy tables from one database into another and keep them equal, change by change, exactly once.

    \b
    cdcrep init                                        writes a configuration file
    cdcrep check cdcrep.toml                           says what is missing
    cdcrep run cdcrep.toml                             copies, then follows every change
    cdcrep query cdcrep.toml "select count(*) from …"  looks into the copy while it runs
    """  # noqa: D301 - \b keeps click from joining the lines


program.params.extend(_shared_options())
for _command in (run, backfill, check, query, status, init, teardown, demo):
    program.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit: 0, or the code of the error (see docs/configuration.md)."""
    invocation = Invocation()
    code = _run(list(sys.argv[1:] if arguments is None else arguments), invocation)
    if invocation.leaves_threads:
        leave(code)
    sys.exit(code)


def _run(arguments: list[str], invocation: Invocation) -> int:
    try:
        result: Any = program.main(arguments, prog_name="cdcrep", standalone_mode=False, obj=invocation)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as help_wanted:
        help_wanted.show()
        return 2
    except click.ClickException as wrong_usage:
        wrong_usage.show()
        return wrong_usage.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):
        # SystemExit is click's own answer to a closed pipe, here the only one that gets this far.
        give_up_standard_output()
        return READER_GONE
    except Exception as error:
        return report(invocation, error)
    return result if isinstance(result, int) else 0
