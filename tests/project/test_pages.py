"""The pages: their links lead somewhere, the site has all, and the rooms in them are those of the code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.test_architecture import GROUND, ROOMS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")],
    key=lambda path: path.relative_to(ROOT),
)


def text_of(path: Path) -> str:
    """The text of a page without its code blocks."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)


def anchors(path: Path) -> Iterator[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    for heading in re.findall(r"^#+ (.+)$", text_of(path), re.M):
        kept = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
        yield kept.strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def test_the_site_has_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    names = {path.stem for path in ROOT.glob("docs/*.md")} - {"index"}
    listed = [
        name
        for tree in re.findall(r"```\{toctree\}(.*?)```", index, re.S)
        for name in re.findall(r"^\w+$", tree, re.M)
    ]
    assert sorted(listed) == sorted(names)
    assert {name.partition(".")[0] for name in re.findall(r"\]\((\w+\.md)\)", index)} == names


def test_the_rooms_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| (`.+`) \|", (ROOT / "docs" / "inside.md").read_text(), re.M)
    listed = [row.strip("`/") for row in rows if "," not in row]
    assert listed == [room for room in ROOMS if room not in ("ground", "front")]
    (ground,) = [row for row in rows if "," in row]
    assert set(re.findall(r"\w+", ground)) == GROUND
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", (ROOT / "docs" / "inside.md").read_text()):
        assert (ROOT / path).exists() or (ROOT / "blkmig_cli" / path).exists(), path
