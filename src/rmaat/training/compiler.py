"""A check of the compiler that torch.compile needs."""

from rmaat.errors import UserError


def check_compiler(device: str) -> None:
    """Raise `UserError` if torch.compile needs a C++ compiler and none works.

    It needs one on the device 'cpu' only.
    """
    if device != "cpu":
        return
    # Import here, because the import is slow and few runs need it.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        raise UserError(
            "torch_compile needs a C++ compiler and none works ($CXX, else g++); install one, "
            "or set torch_compile to false"
        ) from None
