"""The manual says what is true: what it names exists, what exists is named, its code runs, its links lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import doc_pages
from tests.doc_pages import DOCS, REPOSITORY, Project, blocks, links, name, pages


@pytest.mark.parametrize("page", pages(), ids=name)
def test_the_code_runs(page: Path, tmp_path: Path) -> None:
    code = [block for block in blocks(page) if block.language == "python" or block.mark]
    if not code:
        return
    if not any(block.mark.startswith("file: ") for block in code):
        doc_pages.run_in_memory(page, tmp_path)
        return
    project = Project(tmp_path)
    try:
        for block in blocks(page):
            project.follow(block)
    finally:
        project.stop()


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: {link}"
        # The built manual holds docs/ only; a link out of it would be dead there.
        assert page.parent == REPOSITORY or target.is_relative_to(DOCS), f"{name(page)}: {link} leaves docs/"
        if anchor:
            assert anchor in doc_pages.anchors(target), f"{name(page)}: {link}"
