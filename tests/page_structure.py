"""What an HTML page consists of: its tags, their attributes, and the words that a reader sees."""

from html.parser import HTMLParser

_UNSEEN = ("style", "svg", "pre")
_BREAKS = ("p", "li", "tr", "h1", "h2", "h3", "dt", "section", "table", "title", "figcaption")


class Structure(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._words: list[str] = []
        self._unseen = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the tag and its attributes."""
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._unseen += tag in _UNSEEN
        self._words.append("\n" if tag in _BREAKS else " | " if tag in ("td", "th", "dd") else "")

    def handle_endtag(self, tag: str) -> None:
        """Follow where pictures and styles end."""
        self._unseen -= tag in _UNSEEN

    def handle_data(self, data: str) -> None:
        """Keep the text."""
        self.text += data
        if not self._unseen:
            self._words.append(data)

    def words(self) -> str:
        """What a reader sees outside pictures, a line for each paragraph, row and heading.

        What differs from run to run (versions, times, devices) is left out: it stands below "Run of".
        """
        lines = (" ".join(line.split()).strip("| ") for line in "".join(self._words).split("\n"))
        skipped = ("Run of", "Catalogue", "Solver time")
        return "\n".join(line for line in lines if line and not line.startswith(skipped))
