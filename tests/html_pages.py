"""What a page that the project writes must be, whatever is on it."""

from __future__ import annotations

from html.parser import HTMLParser


class Wellformed(HTMLParser):
    """Knows which tags are open, and every address that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
