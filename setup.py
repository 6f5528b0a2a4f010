"""What pyproject.toml cannot express: the README as a package index shows it."""

import re
from pathlib import Path

from setuptools import setup

# A link to another file of the repository leads nowhere from a package index: its text stays, and
# the file's name, which is that in the sdist, where the text is another.
_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:)([^)]+)\)")


def _unlinked(link: re.Match[str]) -> str:
    return link[1] if link[1] == link[2] else f"{link[1]} ({link[2]})"


setup(
    long_description=_LINK.sub(_unlinked, Path("README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
)
