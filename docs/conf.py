"""The settings of Sphinx: the pages in docs/ as a site, by ``make site``."""

from blkmig_cli import __version__

project = "blkmig"
copyright = "the authors of blkmig"  # noqa: A001 (Sphinx's name for it)
version = release = __version__
extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = f"blkmig {__version__}"
html_show_sourcelink = False
# Headings are targets of links, as on a code host.
myst_heading_anchors = 4
