"""A comparison as people and programs read it: JSON, CSV, Markdown, and a page that needs nothing but itself."""

from __future__ import annotations

from api.comparison.document import Comparison, comparison_of
from api.comparison.markdown import as_markdown
from api.comparison.page import TEMPLATES, as_html
from api.comparison.spreadsheet import as_csv

__all__ = ["TEMPLATES", "Comparison", "as_csv", "as_html", "as_markdown", "comparison_of"]
