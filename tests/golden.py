"""Words that people read: one file a page or command in ``tests/golden``, so that prose is mended in one place.

``pytest --update-golden`` writes the files anew; ``git diff tests/golden`` then shows what a change does to the words.
"""

import re
from pathlib import Path

from rodiu_jax.report.parts.section import Section

FOLDER = Path(__file__).parent / "golden"
_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[+-]?\d+)?")


class Golden:
    """Compares text with a golden file, or writes the file where ``update`` is set."""

    def __init__(self, *, update: bool) -> None:
        self.update = update

    def __call__(self, name: str, text: str, *, numbers: bool = True) -> None:
        """Check ``text`` against ``tests/golden/<name>.txt``.

        Args:
          numbers: compare numbers and widths of columns too; without, every number counts as equal (and is written
            as ``#``), for pages whose numbers other tests check or may differ between versions of a solver.
        """
        text = "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n"
        if not numbers:
            text = re.sub(r"([ ━─])\1+", r"\1", _NUMBER.sub("#", text))
        path = FOLDER / f"{name}.txt"
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no {path}: run `pytest --update-golden` and read what it writes"
        expected = path.read_text(encoding="utf-8")
        assert text == expected, (
            f"{path.name} differs: run `pytest --update-golden` if the new words are right"
        )


def numbers(text: str) -> list[float]:
    """The numbers in a sentence, in their order: ``$1,472 at 3`` gives ``[1472, 3]``."""
    return [float(found.replace(",", "")) for found in _NUMBER.findall(text)]


def section_words(section: Section) -> str:
    """What a section says, without the cells of its tables: title, text, sentences, pictures, captions and heads."""
    tables = [line for t in section.tables for line in (t.caption, " | ".join(t.heads))]
    return "\n".join(
        [section.title, section.text, *section.points, *(p.description for p in section.pictures), *tables]
    )
