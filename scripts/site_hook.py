"""What the documentation site adds to its pages: files of the repository that pages link to come along.

On the site a link that leaves docs/ leads to a copy of the file; to a folder's README, or it becomes plain text.
"""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
HOME = "repository"  # the folder of the site in which they lie


def on_config(config: Any) -> Any:
    """List the decisions in the order of their numbers."""
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    titles = {page: page.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for page in pages}
    decisions = [{title: f"decisions/{page.name}"} for page, title in titles.items()]
    project = next(section["Project"] for section in config.nav if "Project" in section)
    project[-1] = {"Decisions": decisions}
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add what any page links to outside docs/, and what those pages link to in turn."""
    from mkdocs.structure.files import File, InclusionLevel  # of an extra

    beside = InclusionLevel.NOT_IN_NAV

    pending = [Path(file.abs_src_path) for file in files if file.src_uri.endswith(".md")]
    seen: set[Path] = set()
    while pending:
        page = pending.pop()
        for target in _outside(page):
            if target not in seen:
                seen.add(target)
                files.append(File.generated(config, _uri(target), abs_src_path=str(target), inclusion=beside))
                pending += [target] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links that leave docs/ lead to the copies."""
    source = Path(page.file.abs_src_path)
    depth = "../" * page.file.src_uri.count("/")

    def replaced(match: re.Match[str]) -> str:
        picture, text, link, anchor = match.groups(default="")
        if "://" in link:
            return match[0]
        target = (source.parent / link).resolve()
        if target.is_relative_to(ROOT / "docs") and source.is_relative_to(ROOT / "docs"):
            return match[0]
        file = _file(target)
        return text if file is None else f"{picture}[{text}]({depth}{_uri(file)}{anchor})"

    return LINK.sub(replaced, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out what names the kind of a thing in docstrings, as in :class:`Prompt`."""
    return re.sub(r":(?:class|func|meth|mod|data|attr|exc):(?=<code>)", "", html)


def _outside(page: Path) -> list[Path]:
    """List the files outside docs/ that a page links to."""
    links = [link for _, _, link, _ in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    files = [_file((page.parent / link).resolve()) for link in links]
    return [file for file in files if file is not None and not file.is_relative_to(ROOT / "docs")]


def _file(target: Path) -> Path | None:
    """Return what a link to a file or folder of the repository leads to."""
    if target.is_dir():
        target = target / "README.md"
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _uri(file: Path) -> str:
    """Return where on the site a file of the repository lies."""
    inside = file.relative_to(ROOT)
    return str(inside.relative_to("docs") if inside.parts[0] == "docs" else Path(HOME) / inside)
