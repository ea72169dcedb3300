"""Fresh processes in a fraction of their seconds: forked where the libraries are loaded already.

A test that asks what a program does in a process of its own pays for torch and transformers before
the program's first line, several seconds of one core each time. Here one process for each test
worker loads them once, and nothing of this project; every program runs in a fork of it, with its
own environment, working directory, search path and streams, as `python -c` or `python -m` would
start it.

Questions about starting itself are for a real process (`subprocess`): what a program imports of
these libraries, what it does without them, a signal before its first line.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

LIBRARIES = [
    "torch",
    "torchvision.transforms.v2",
    "transformers.models.clip.modeling_clip",
    "transformers.models.clip.processing_clip",
    "transformers.pipelines",
]
"""What is loaded already. None of them starts a thread, which a fork would lose."""
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LIBRARIES)
ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 600.0


@dataclass(frozen=True)
class Program:
    """What a process runs: `-c CODE` or `-m MODULE` with its arguments, and where.

    `streams` is a directory with the file `in`, where `out` and `err` are written.
    """

    line: tuple[str, ...]
    directory: str
    environment: Mapping[str, str]
    streams: str


class Process:
    """A program that runs, like `subprocess.Popen` with text."""

    def __init__(
        self,
        *line: str | Path,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str = "",
    ):
        """Start it.

        Args:
            line: what would follow `python`: `-c` or `-m`, the code or the module, arguments.
            cwd: where it runs (default: here).
            env: its environment (default: that of the test).
            input: what it may read.
        """
        self.line = tuple(map(str, line))
        self.streams = tempfile.TemporaryDirectory()
        place = self.streams.name
        Path(place, "in").write_text(input)
        environment = dict(os.environ if env is None else env)
        program = Program(self.line, os.path.abspath(cwd or "."), environment, place)
        self.process = FORKS.Process(target=_run, args=(program,), daemon=True)
        self.process.start()

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def wait(self, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """How it ended, and what it wrote.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then; it is killed.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise subprocess.TimeoutExpired(self.line, timeout)
        with self.streams as place:
            out, err = ((Path(place) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(self.line, self.process.exitcode, out, err)


def python(
    *line: str | Path, check: bool = True, timeout: float = TIMEOUT, **where
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, like `subprocess.run`; `where` is what `Process` takes.

    Raises:
        AssertionError: it ended with another status than 0, and that is checked.
    """
    ended = Process(*line, **where).wait(timeout)
    assert not check or ended.returncode == 0, ended.stderr
    return ended


def _run(program: Program) -> None:
    """Run a program in this process, a fork, and end it as Python would."""
    _connect(Path(program.streams))
    os.chdir(program.directory)
    os.environ.clear()
    os.environ.update(program.environment)
    _heed(program.environment)
    before = [program.directory, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.path[:] = [*before, *(path for path in sys.path if path and Path(path).resolve() != ROOT)]
    kind, what, *arguments = program.line
    sys.argv[:] = [kind, *arguments]
    try:
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), main.__dict__)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        raise SystemExit(1) from None


def _connect(streams: Path) -> None:
    """Make files of a directory the standard streams, those of C code too."""
    for number, (name, mode) in enumerate((("in", "r"), ("out", "w"), ("err", "w"))):
        with (streams / name).open(mode) as file:
            os.dup2(file.fileno(), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)


def _heed(environment: Mapping[str, str]) -> None:
    """Set what the libraries read from the environment when they were loaded."""
    import huggingface_hub.constants
    import transformers.dynamic_module_utils as code

    home = environment.get("HF_HOME")
    if modules := environment.get("HF_MODULES_CACHE", home and str(Path(home) / "modules")):
        code.HF_MODULES_CACHE = modules
    if "HF_HUB_OFFLINE" in environment:
        huggingface_hub.constants.HF_HUB_OFFLINE = environment["HF_HUB_OFFLINE"] == "1"
