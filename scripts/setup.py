"""Sets up an environment that runs everything: `make setup` calls it, `make demo` and `make test` do first.

    python3 scripts/setup.py [--venv .venv] [--python VERSION_OR_PATH]

It needs a Python 3.8 or newer with pip to start from, and nothing else: no uv, no compiler, no venv module. In order:

1. nothing at all, where the environment already is what `uv.lock` says;
2. uv, from PATH or by pip into `.uv-bootstrap/`;
3. the lane (see `choose`): which Python, and whether TFX installs on this machine;
4. a C++ compiler, where TFX needs one and the machine has none;
5. `uv sync` from the lock, the package itself installed editable.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / ".uv-bootstrap"
STAMP = "vitrina-setup.json"

UV_WANTED = "uv>=0.9,<1"
UV_OLDEST = (0, 9)

#: TFX 1.21 comes as wheels built against this glibc; TFX 1.16, for Python 3.10, runs on older ones too.
MODERN_GLIBC = (2, 38)
CLASSIC = (3, 10)
MODERN = ((3, 12), (3, 13), (3, 11))

WITHOUT_TFX = ("hub", "k8s", "vertex")
HEARTBEAT_SECONDS = 20


class Lane(NamedTuple):
    """The Python to build the environment from, and whether TFX goes into it."""

    python: str
    version: tuple[int, int]
    tfx: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", default=".venv", help="the environment's folder (default: .venv)")
    parser.add_argument("--python", default="", help="a version (3.11) or a path; default: the lane that runs all")
    arguments = parser.parse_args()
    venv = (ROOT / arguments.venv).absolute()
    fingerprint = lock_fingerprint(arguments.python)
    if (summary := already_done(venv, fingerprint)) is not None:
        say(summary)
        return 0
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise failure(
            f"This machine is {platform.system()} on {platform.machine()}, and TensorFlow Serving and TFX are built "
            "for Linux on x86_64. Use such a machine, or a container of it."
        )
    started = time.monotonic()
    prepare_environment()
    uv = find_uv() or bootstrap_uv()
    lane = choose(uv, arguments.python)
    what = "everything" if lane.tfx else "everything but TFX"
    say(f"Installing {what} into {shown(venv)} for Python {dotted(lane.version)} ({lane.python}).")
    sync(uv, lane, venv)
    summary = describe(venv, lane)
    (venv / STAMP).write_text(json.dumps({"fingerprint": fingerprint, "summary": summary}), encoding="utf-8")
    say(f"{summary} Took {time.monotonic() - started:.0f} s.")
    return 0


# ---- what is there already -------------------------------------------------------------------------------------------


def lock_fingerprint(python: str) -> str:
    """Changes when the lock, the project's settings or the Python asked for do."""
    digest = hashlib.sha256(python.encode())
    for name in ("uv.lock", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def already_done(venv: Path, fingerprint: str) -> str | None:
    """The summary of an earlier run that still holds, else None."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding="utf-8"))
        summary = stamp["summary"] if stamp["fingerprint"] == fingerprint else None
    except (OSError, ValueError, KeyError):
        return None
    # A moved checkout or a removed Python leaves dangling links behind.
    works = all((venv / "bin" / name).exists() for name in ("python", "vitrina")) and moved_from(venv) == str(venv)
    return summary if works else None


def moved_from(venv: Path) -> str:
    """The folder that the environment was made in, as its console script remembers."""
    shebang = (venv / "bin" / "vitrina").read_text(encoding="utf-8", errors="replace").split("\n", 3)[:3]
    found = re.search(r"(/[^'\"\n]+)/bin/python", "\n".join(shebang))
    return found.group(1) if found else ""


def describe(venv: Path, lane: Lane) -> str:
    """One line that says what the environment holds."""
    code = (
        "import importlib.metadata as m, platform; "
        "print('Python', platform.python_version() + ', TensorFlow', m.version('tensorflow'), end='')"
    )
    if lane.tfx:
        code += "; print(', TFX', m.version('tfx'), end='')"
    versions = run([str(venv / "bin" / "python"), "-c", code])
    if versions is None:
        raise failure(
            f"{shown(venv)} was installed, but its Python does not run. Remove the folder and run make setup again."
        )
    without = "" if lane.tfx else " TFX is left out: `vitrina pipeline` and `vitrina demo` need it, nothing else does."
    return f"Ready: {shown(venv)} has {versions}.{without}"


# ---- uv --------------------------------------------------------------------------------------------------------------


def find_uv() -> str | None:
    """A uv that runs and reads this lock: from an earlier bootstrap or from PATH."""
    for candidate in (str(BOOTSTRAP / "bin" / "uv"), shutil.which("uv")):
        found = re.match(r"uv (\d+)\.(\d+)", run([candidate, "--version"]) or "") if candidate else None
        if found and (int(found[1]), int(found[2])) >= UV_OLDEST:
            return candidate
    return None


def bootstrap_uv() -> str:
    """Installs uv for this checkout alone.

    `pip install --target` needs neither the venv module nor leave to write into the system's Python (PEP 668).
    """
    say("Bringing uv into .uv-bootstrap/ ...")
    target = ["install", "--quiet", "--upgrade", "--target", str(BOOTSTRAP), UV_WANTED]
    pips = [[sys.executable, "-m", "pip"], *([path] for path in (shutil.which("pip3"), shutil.which("pip")) if path)]
    errors = []
    for pip in pips:
        done = subprocess.run([*pip, *target], capture_output=True, text=True, check=False)
        if done.returncode == 0 and (uv := find_uv()):
            return uv
        errors.append(done.stderr.strip().rpartition("\n")[2])
    raise failure(
        f"uv is not installed, and {sys.executable} -m pip could not bring it ({errors[0]}). "
        "Install pip (Debian: apt install python3-pip) or uv, and run it again."
    )


# ---- the lane --------------------------------------------------------------------------------------------------------


def choose(uv: str, asked: str) -> Lane:
    """Which Python, and whether TFX installs.

    | Python    | TFX  | TensorFlow | runs on       |
    |-----------|------|------------|---------------|
    | 3.10      | 1.16 | 2.16       | any glibc     |
    | 3.11-3.13 | 1.21 | 2.21       | glibc >= 2.38 |
    | 3.11-3.13 | none | 2.21       | any glibc     |

    What was asked for is taken. Otherwise it is a lane with TFX, by a Python that the machine has where there is one.
    """
    modern = glibc() >= MODERN_GLIBC
    if asked:
        python = asked if os.sep in asked else (installed(parse_version(asked)) or brought(uv, parse_version(asked)))
        version = probe(python) if python else None
        if version is None:
            raise failure(
                f"PYTHON={asked} was asked for, and no such Python runs here. Install it, or leave PYTHON= out."
            )
        if version not in (CLASSIC, *MODERN):
            raise failure(
                f"PYTHON={asked} is Python {dotted(version)}, and Vitrina runs on 3.10 to 3.13. Give one of these."
            )
        return Lane(str(python), version, tfx=modern or version == CLASSIC)
    wanted = (*MODERN, CLASSIC) if modern else (CLASSIC,)
    for find in (installed, lambda version: brought(uv, version)):
        for version in wanted:
            if python := find(version):
                return Lane(python, version, tfx=True)
    raise failure(
        f"No Python {' or '.join(map(dotted, wanted))} was found on PATH or among pyenv's, and uv could not download "
        f"one. Install it (pyenv install {dotted(wanted[-1])}, for one), give PYTHON=/path/to/python, or "
        "PYTHON=3.11 for everything but TFX."
    )


def glibc() -> tuple[int, int]:
    """The C library's version; (0, 0) where it is another library, such as musl."""
    try:
        found = re.search(r"glibc (\d+)\.(\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):
        found = None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def installed(version: tuple[int, int]) -> str | None:
    """A Python of this version that the machine has and that runs: on PATH, or in pyenv's folder."""
    on_path = shutil.which(f"python{dotted(version)}")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    by_pyenv = sorted(pyenv.glob(f"{dotted(version)}.*/bin/python{dotted(version)}"), reverse=True)
    # In an activated environment this is the Python below it: an environment should not be built from itself.
    running = getattr(sys, "_base_executable", sys.executable)
    for candidate in (running, on_path, *map(str, by_pyenv)):
        # A pyenv shim exists for every version, and fails for those that are not selected: only running it tells.
        if candidate and probe(candidate) == version:
            return candidate
    return None


def brought(uv: str, version: tuple[int, int]) -> str | None:
    """A Python of this version that uv knows or downloads."""
    asked = ["--managed-python", dotted(version)]
    if found := run([uv, "python", "find", *asked]):
        return found
    say(f"Downloading Python {dotted(version)} ...")
    subprocess.run([uv, "python", "install", dotted(version)], check=False)
    return run([uv, "python", "find", *asked])


def probe(python: str) -> tuple[int, int] | None:
    """The version of a Python that runs and has the modules that we need and the headers that TFX's builds need."""
    code = (
        "import bz2, ctypes, os, sqlite3, ssl, sys, sysconfig; "
        "os.stat(os.path.join(sysconfig.get_path('include'), 'Python.h')); print(*sys.version_info[:2])"
    )
    printed = run([python, "-c", code])
    return parse_version(printed.replace(" ", ".")) if printed else None


# ---- installing ------------------------------------------------------------------------------------------------------


def prepare_environment() -> None:
    """Settings for every call of uv: this project's environment alone, slow networks, the machine's certificates."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        os.environ.pop(name, None)
    os.environ.setdefault("UV_HTTP_TIMEOUT", "300")
    certificates = ssl.get_default_verify_paths()
    if certificates.cafile or (certificates.capath and os.listdir(certificates.capath)):
        # pip trusts what the machine trusts, such as a company's proxy; uv brings its own list unless told.
        os.environ.setdefault("UV_SYSTEM_CERTS", "true")


def sync(uv: str, lane: Lane, venv: Path) -> None:
    """Makes the environment what the lock says, with the package itself editable."""
    environment = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(venv)}
    if lane.tfx and not (shutil.which("c++") or shutil.which("g++")):
        environment.update(bring_compiler(uv, lane))
    extras = ("all",) if lane.tfx else WITHOUT_TFX
    command = [uv, "sync", "--locked", "--python", lane.python, *(f"--extra={extra}" for extra in extras)]
    if (venv / STAMP).exists():
        (venv / STAMP).unlink()
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    started = time.monotonic()
    while True:
        try:
            code = process.wait(timeout=HEARTBEAT_SECONDS)
            break
        except subprocess.TimeoutExpired:
            # uv draws its own progress on a terminal, and is silent elsewhere.
            if not sys.stderr.isatty():
                say(f"... still installing ({time.monotonic() - started:.0f} s)")
    if code:
        raise failure(f"uv sync ended with {code}; its own words are above. Once that is mended, run make setup again.")


def bring_compiler(uv: str, lane: Lane) -> dict[str, str]:
    """A C++ compiler from a wheel, for pyfarmhash, which TFX needs and which comes as source alone."""
    say("There is no C++ compiler here, and TFX needs one: bringing one into .uv-bootstrap/ (100 MB) ...")
    target = BOOTSTRAP / "compiler"
    command = [uv, "pip", "install", "--quiet", "--python", lane.python, "--target", str(target), "ziglang<1"]
    if subprocess.run(command, check=False).returncode:
        raise failure(
            "The compiler could not be downloaded. Install g++ (Debian: apt install g++), and run make setup again."
        )
    zig = target / "ziglang" / "zig"
    found = {}
    for variable, name in (("CC", "cc"), ("CXX", "c++")):
        wrapper = target / name
        wrapper.write_text(f'#!/bin/sh\nexec "{zig}" {name} "$@"\n', encoding="utf-8")
        wrapper.chmod(0o755)
        found[variable] = str(wrapper)
    return found


# ---- small things ----------------------------------------------------------------------------------------------------


def run(command: list[str]) -> str | None:
    """What a command prints, or None where it fails or is not there."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def parse_version(text: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", text)
    if not found:
        raise failure(f"Got PYTHON={text}, wanted a version such as 3.10 or a path. Mend it, or leave PYTHON= out.")
    return int(found[1]), int(found[2])


def dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if ROOT in path.parents else str(path)


def say(text: str) -> None:
    print(f"[setup] {text}", flush=True)


def failure(text: str) -> SystemExit:
    """What to raise where there is no going on: Python prints it to stderr and exits with 1."""
    return SystemExit(f"[setup] {text}")


if __name__ == "__main__":
    sys.exit(main())
