"""Text from outside, as the page shows it."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from coverage_dashboards.escape import LONGEST, html, plain


class Parsed(HTMLParser):
    """What a browser makes of it: the tags and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_markup_is_shown_as_it_is_written() -> None:
    for text in ("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "&lt;b&gt;", "\"'><svg onload=alert(1)>", "a & b"):
        parsed = Parsed(f"<p title='{html(text)}'>{html(text)}</p>")
        assert parsed.tags == ["p"]
        assert parsed.text == text


def test_what_turns_text_around_or_cannot_be_seen_is_left_out() -> None:
    assert plain("a\u202eb\u202c\u2066c\u2069\u200f\u200bd\x00\x1b[31me") == "abcd[31me"
    assert plain("two\r\nlines\tand\u2028more ") == "two lines and more"
    assert plain("Überflug ±52° – 日本 עברית") == "Überflug ±52° – 日本 עברית"
    assert plain("x" * 10_000) == "x" * (LONGEST - 1) + "…"


@given(st.text(max_size=200))
def test_no_text_becomes_markup(text: str) -> None:
    parsed = Parsed(f'<p title="{html(text)}">{html(text)}</p>')
    assert parsed.tags == ["p"]
    assert parsed.text == plain(text)
