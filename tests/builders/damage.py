"""Ways in which a file may be damaged, as hypothesis draws them."""

from collections.abc import Callable

from hypothesis import strategies as st

Damage = Callable[[bytes], bytes]
"""Maps the content of a file to what is left of it."""


def replaced(at: float, length: int, new: bytes) -> Damage:
    """Put `new` in place of `length` bytes at this fraction of the file."""

    def damage(content: bytes) -> bytes:
        start = int(at * len(content))
        return content[:start] + new + content[start + length :]

    return damage


def flipped(at: float, bit: int) -> Damage:
    """Flip a bit of the byte at this fraction of the file."""

    def damage(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[int(at * (len(content) - 1))] ^= 1 << bit
        return bytes(changed)

    return damage


_PLACES = st.floats(0, 1)
_PIECES = st.sampled_from(
    (b"", b",", b'"', b"\n", b"\r", b"\0", b"\xff", b"nan", b"inf", b"-", b"1e999", b"x", b"{", b"[" * 9999)
)
DAMAGES = (
    st.builds(replaced, _PLACES, st.integers(0, 4), _PIECES | st.binary(max_size=3))
    | st.builds(replaced, _PLACES, st.just(10**9), st.just(b""))
    | st.builds(flipped, _PLACES, st.integers(0, 7))
)
"""A few bytes replaced, the file cut off, or one bit flipped, anywhere."""
