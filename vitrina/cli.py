"""The command line: finds the verb, runs it, and turns errors into one line and an exit code.

A verb is one file in `vitrina/verbs/`, see there. This module knows none of them by name.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence

from signatures.errors import UsageError, VitrinaError, did_you_mean
from vitrina import __version__, verbs

__all__ = ["main"]

_EXIT_INTERRUPTED = 128 + signal.SIGINT
_EPILOG = "exit codes: 0 done, 1 a check did not hold or the job failed, 2 wrong usage"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The words after `vitrina`; by default the process's.

    Returns:
        The exit code: 0 done, 1 a check did not hold or the job failed, 2 wrong usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in words
    if not verbose:
        _hush()
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as leaving:  # --help, and verbs that read their own words
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; that is no failure. Python would complain once more when it
        # flushes at exit, so stdout is pointed elsewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("vitrina: interrupted", file=sys.stderr)
        return _EXIT_INTERRUPTED
    except VitrinaError as error:
        return _fail(error, str(error), error.exit_code, verbose=verbose)
    except OSError as error:
        return _fail(error, f"{error} (run with --verbose for the trace)", 1, verbose=verbose)
    except Exception as error:
        told = f"{type(error).__name__}: {error} (this is a defect of Vitrina; run with --verbose for the trace)"
        return _fail(error, told, 1, verbose=verbose)


def _run(words: list[str]) -> int:
    if words[:1] == ["--verbose"]:  # the flag may also stand before the verb
        words = [*words[1:], *words[:1]]
    known = verbs.found()
    if not words or words[0] in ("-h", "--help"):
        print(_overview(known))
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        print(f"vitrina {__version__}")
        return 0
    name, rest = words[0], words[1:]
    if name not in known:
        raise UsageError(f"There is no command '{name}'.{did_you_mean(name, known)} See: vitrina --help")
    verb = verbs.load(name)
    if isinstance(verb, verbs.PassedOn):
        return verb.main(rest)
    parser = _Parser(prog=f"vitrina {name}", description=verb.help, epilog=_EPILOG, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    verb.configure(parser)
    parser.add_argument("--verbose", action="store_true", help="show TensorFlow's messages, and the trace of an error")
    return verb.run(parser.parse_args(rest))


class _Parser(argparse.ArgumentParser):
    """Errors in one line, as all others, without the usage block."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")


def _overview(known: dict[str, str]) -> str:
    width = max(map(len, known), default=0)
    lines = ["usage: vitrina COMMAND ...", "", "A shop window for vision models.", "", "commands:"]
    lines += [f"  {name:<{width}}  {told}" for name, told in known.items()]
    lines += ["", "options:", "  --help     this overview; vitrina COMMAND --help tells a command's options"]
    lines += [
        "  --version  the installed version",
        "  --verbose  show TensorFlow's messages, and the trace of an error",
    ]
    return "\n".join([*lines, "", _EPILOG])


def _hush() -> None:
    """Keeps TensorFlow's and its neighbours' chatter from stderr; `--verbose` leaves it on."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


def _fail(error: BaseException, told: str, code: int, *, verbose: bool) -> int:
    if verbose:
        traceback.print_exception(type(error), error, error.__traceback__)
    print("vitrina: " + " ".join(told.split()), file=sys.stderr)
    return code
