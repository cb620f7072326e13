"""Models: from the configuration's text, or from any `nn.Module`, to pure functions; and back to an `nn.Module`."""

from .adopt import from_module
from .bridge import Model, blamed
from .build import build_model

__all__ = ["Model", "blamed", "build_model", "from_module"]
