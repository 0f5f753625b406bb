"""What is used of Norse, whose import warns about parts of torch that it still uses, and sets up logging."""

import logging
import warnings

_handlers = list(logging.root.handlers)
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=DeprecationWarning)
    from norse.torch import LIFParameters, LIFRefracParameters, LIFRefracRecurrentCell, LIFRefracState, LIFState
# Norse logs while it is imported. That gives the root logger a handler, which would print PyMC's messages twice.
logging.root.handlers[:] = _handlers

__all__ = ["LIFParameters", "LIFRefracParameters", "LIFRefracRecurrentCell", "LIFRefracState", "LIFState"]
