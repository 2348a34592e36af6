"""Names of options that are not there: the near ones, those of the Python API, and former ones."""

from typing import Any

from typer.core import TyperGroup

from varlab.errors import VarlabError, near_names

FORMER = {"--accelerate": "--method"}  # still taken, not listed
MEANT = {  # by the API, or by other tools
    "accelerator": "method", "accelerators": "method", "methods": "method", "spec": "method", "folder": "out",
    "run-folder": "out", "output": "out", "json": "out", "dtype": "precision", "batch-size": "batch",
    "temperature": "tau", "guidance": "cfg", "guidance-scale": "cfg", "prompt-set": "prompts", "force": "overwrite",
    "num": "n", "probes": "probe",
}  # fmt: skip


class Commands(TyperGroup):
    """A group in which an unknown option is one line with near names, as every other mistake is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        return super().parse_args(ctx, [_today(item) for item in args[:end]] + args[end:])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if type(error).__name__ != "NoSuchOption":  # of click, or of the copy of it that newer typers bring
                raise
            raise _unknown(error) from None


def _today(item: str) -> str:
    name, equals, value = item.partition("=")
    return f"{FORMER.get(name, name)}{equals}{value}"


def _unknown(error: Any) -> VarlabError:
    """The error for an option that the command does not take."""
    listed = [item for item in error.ctx.command.params if item.param_type_name == "option" and not item.hidden]
    names = {name for item in listed for name in (*item.opts, *item.secondary_opts)} | {"--help"}
    known = sorted(name for name in names if name.startswith("--"))
    plain, given = [name.removeprefix("--") for name in known], error.option_name.lstrip("-").replace("_", "-")
    near = [MEANT[given]] if MEANT.get(given) in plain else near_names(given, plain)
    hint = f"Did you mean {' or '.join(f'--{name}' for name in near)}? " if near else ""
    return VarlabError(
        f"Unknown option {error.option_name} of {error.ctx.command_path}. {hint}Known: {', '.join(known)}."
    )
