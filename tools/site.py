"""A hook of MkDocs: what lies outside docs/ has no page on the site, so links to it become their text."""

import re
from typing import Any

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page's text with its links to files outside the site undone."""
    return OUTSIDE.sub(r"\1", markdown)
