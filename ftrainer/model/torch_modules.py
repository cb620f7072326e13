"""The module classes of `torch.nn`, found and not typed by hand."""

from __future__ import annotations

from torch import nn


def torch_modules() -> dict[str, type[nn.Module]]:
    """Every module class that `torch.nn` exports, losses too, as `nn.<Name>`.

    >>> modules = torch_modules()
    >>> modules["nn.Linear"], modules["nn.MSELoss"].__name__, "nn.Module" in modules
    (<class 'torch.nn.modules.linear.Linear'>, 'MSELoss', False)
    """
    exported = {name: getattr(nn, name) for name in sorted(dir(nn)) if not name.startswith("_")}
    return {
        f"nn.{name}": cls
        for name, cls in exported.items()
        if isinstance(cls, type) and issubclass(cls, nn.Module) and cls is not nn.Module
    }
