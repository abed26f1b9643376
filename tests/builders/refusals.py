"""What a refusal must look like, whatever was refused."""

from prefvlm_core.common.errors import PrefVLMError


def is_one_line(error: PrefVLMError) -> bool:
    """Whether the message can be printed anywhere, as one line."""
    return str(error).isprintable() and str(error) != ""
