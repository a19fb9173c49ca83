"""The one exception for what a user can mend, and how a command reports it."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging


class UserError(Exception):
    """Something the user can mend. Its message is one line: what was expected and what to do."""


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
    """Turn a `UserError` into one line on standard error and exit status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def run_command(main: Callable[[Sequence[str]], None]) -> None:
    """Run a command's `main(arguments)` under absl; bad flags and every `UserError` end it with one line, status 2."""

    def guarded(argv: Sequence[str]) -> None:
        logging.set_verbosity(logging.ERROR)  # Orbax tells, and warns, of every file that it meets
        with exit_on_user_error():
            main(argv[1:])

    app.run(guarded, flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    with exit_on_user_error():
        try:
            rest = flags.FLAGS(list(argv))
            for name in flags.FLAGS:
                getattr(flags.FLAGS[name].value, "lock", None)  # the config of a file that is not there raises here
            return rest
        except (SyntaxError, ImportError, NameError) as error:
            place = f"{error.filename}, line {error.lineno}: " if isinstance(error, SyntaxError) else ""
            raise UserError(f"the config file cannot be read: {place}{error.args[0]}; mend it") from error
        except (AttributeError, KeyError) as error:  # ml_collections: a key that the config does not have
            key = str(error).strip("\"'").split("\\n")[0].split("\n")[0].strip("\"'")
            raise UserError(f"the config has no key {key!r}; configs/defaults.py lists them all") from error
        except (flags.Error, OSError, TypeError, ValueError) as error:
            message = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
            raise UserError(f"{message}; --help lists the flags") from error
