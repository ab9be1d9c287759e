"""Whether torch.compile finds what it needs."""

from rmaat.errors import UserError


def check_compiler(device: str) -> None:
    """Raise `UserError` where torch.compile has no C++ compiler to work with; on 'cpu' it needs one."""
    if device != "cpu":
        return
    # Heavy, and wanted by few runs.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, OSError):
        raise UserError(
            "torch_compile needs a C++ compiler and none works ($CXX, else g++); install one, or set torch_compile to false"
        ) from None
