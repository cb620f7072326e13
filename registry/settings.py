"""What a configuration is allowed to do beyond naming registered keys."""

from __future__ import annotations

from .spec import component


@component
class Settings:
    """The top-level section `settings:`.

    Attributes:
        strict: refuse unknown reserved keys (`_x_`) in a spec; otherwise they are notes that nobody reads.
        allow_imports: let `imports:` load plugins.
        allow_target: let `_target_:` call a factory by its import path.
        allowed_import_prefixes: packages under which both must lie; `extensions` allows `extensions.rl.data` too.
    """

    strict: bool = True
    allow_imports: bool = False
    allow_target: bool = False
    allowed_import_prefixes: tuple[str, ...] = ("extensions",)

    def permits(self, module: str) -> bool:
        """Whether a module lies under one of the allowed prefixes.

        >>> Settings().permits("extensions.offline"), Settings().permits("extensions_of_mine")
        (True, False)
        """
        prefixes = [prefix.rstrip(".") for prefix in self.allowed_import_prefixes]
        return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes if prefix)
