"""MkDocs hook: the style sheet for highlighted code comes from the pinned Pygments, so there is no copy to keep."""

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pygments.formatters import HtmlFormatter


def on_files(files: Files, config: MkDocsConfig) -> Files:
    css = HtmlFormatter(style="default").get_style_defs(".codehilite")
    files.append(File.generated(config, "assets/code.css", content=css))
    return files
