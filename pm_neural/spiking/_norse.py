"""What is used of Norse, whose import warns about parts of torch that it still uses."""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=DeprecationWarning)
    from norse.torch import LIFParameters, LIFRefracParameters, LIFRefracRecurrentCell, LIFRefracState, LIFState

__all__ = ["LIFParameters", "LIFRefracParameters", "LIFRefracRecurrentCell", "LIFRefracState", "LIFState"]
