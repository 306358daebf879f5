"""Texts of strangers, made fit for a terminal and a page: they may hold what moves a cursor or forges a line."""

import unicodedata
from typing import Any

HIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # controls, lone surrogates, line and paragraph separators
TURNING = {"\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
LONGEST = 400  # characters of somebody else's message in one of ours


def visible(text: object) -> str:
    """Return a text with everything escaped that a terminal would obey or could not show."""
    return "".join(escaped(sign) if is_hidden(sign) else sign for sign in str(text))


def is_hidden(sign: str) -> bool:
    return sign in TURNING or unicodedata.category(sign) in HIDDEN


def escaped(sign: str) -> str:
    # what stands for a byte of a path that is no UTF-8 is shown as that byte
    byte = ord(sign) - 0xDC00 if "\udc80" <= sign <= "\udcff" else None
    return f"\\x{byte:02x}" if byte is not None else sign.encode("unicode_escape").decode("ascii")


def visible_in(value: Any) -> Any:
    """Return JSON whose texts are all visible; see `visible`."""
    if isinstance(value, dict):
        return {visible(name): visible_in(one) for name, one in value.items()}
    if isinstance(value, list):
        return [visible_in(one) for one in value]
    return visible(value) if isinstance(value, str) else value


def reason(error: BaseException) -> str:
    """Return what an error of another library says, on one line and not too long of it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
