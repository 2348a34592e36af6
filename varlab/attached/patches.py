"""Hooks and wrapped methods on modules of others, every one undone on exit."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from torch import nn

Around = Callable[..., Any]  # (original, args, keywords) -> what the method returns


class Patches(ExitStack):
    """Undoes in reverse order what it has placed, whatever was raised in between."""

    def method(self, owner: Any, name: str, around: Around) -> Callable[..., Any]:
        """Let ``around`` stand about a method of one object; returns the original, bound."""
        own, original = vars(owner), getattr(owner, name)
        was_own, held = name in own, own.get(name)

        @wraps(original)
        def wrapped(*args: Any, **keywords: Any) -> Any:
            return around(original, args, keywords)

        def undo() -> None:
            if was_own:
                own[name] = held
            else:
                own.pop(name, None)

        own[name] = wrapped
        self.callback(undo)
        return original  # type: ignore[no-any-return]

    def before(self, module: nn.Module, hook: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]) -> None:
        """Call ``hook(module, args, keywords)`` before a module runs."""
        self.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(self, module: nn.Module, hook: Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]) -> None:
        """Call ``hook(module, args, keywords, output)`` after a module has run."""
        self.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
