"""What a command does first."""

import importlib
import sys
from collections.abc import Sequence

from core import platform


def command(module: str, *, name: str = "train", defaults: Sequence[str] = ()) -> None:
    """Runs `task(config, folder)` of `module` under `conf/<name>.yaml`, see `command_line.main`.

    The process is tuned before it imports the module, since that may start it anew. `defaults` are arguments that hold
    where neither their key nor `resume` is typed.
    """
    tune()
    from experiments.config import command_line

    typed = {argument.partition("=")[0] for argument in sys.argv[1:]}
    sys.argv[1:1] = [given for given in defaults if not {given.partition("=")[0], "resume"} & typed]
    command_line.main(importlib.import_module(module).task, name=name)


def tune() -> None:
    """See `platform.tune`; `tune=false` on the command line leaves the process as it is."""
    platform.tune(wanted="tune=false" not in sys.argv)
