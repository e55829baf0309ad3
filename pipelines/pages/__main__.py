"""Gather the pages of the site in a folder: those in `docs/`, and those that programs write.

`make site` runs it before the builder; the builder needs nothing of this project installed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipelines.pages import command_line, configuration, files, notebook, python_api
from pipelines.pages.command_line import ROOT
from pipelines.support.command_line import Program
from port.core.quirks import QUIRKS

OUT = ROOT / "build" / "pages"
# Pages that programs write, by their place on the site.
WRITTEN: dict[str, Callable[[], str]] = {
    "reference/configuration.md": configuration.page,
    "reference/command_line.md": command_line.commands_page,
    "reference/programs.md": command_line.programs_page,
    "reference/exit_codes.md": command_line.exit_codes_page,
    "reference/files.md": files.page,
    "reference/taps.md": files.taps_page,
    "reference/python.md": python_api.page,
}
# Pages of the repository's root, by their place on the site.
ROOT_PAGES = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
# Tabs of one page: a list of the pages beside them would hold that page alone.
ALONE = "---\nhide: [navigation]\n---\n\n"
ALONE_PAGES = ("index.md", "results.md", "tutorial.md", "glossary.md")
# What a link to a file of the repository becomes: the page that says the same.
PAGE_OF = {ROOT / source: place for place, source in ROOT_PAGES.items()} | {ROOT / "README.md": "index.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")


def relinked(text: str, source: Path, place: str, out: Path) -> str:
    """A page whose links lead to pages of the site; pictures are copied, links to other files become their text.

    Args:
        text: the page.
        source: its file in the repository.
        place: where it stands on the site.
        out: the folder of the site's pages.
    """
    up = "../" * place.count("/")

    def link(match: re.Match) -> str:
        picture, words, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        file = (source.parent / target).resolve()
        if file in PAGE_OF:
            return f"{picture}[{words}]({up}{PAGE_OF[file]}{anchor})"
        if file.is_relative_to(ROOT / "docs"):
            return f"{picture}[{words}]({up}{file.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        if picture:
            copy = out / "pictures" / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            return f"![{words}]({up}pictures/{file.name})"
        return words if words.startswith("`") else f"`{words}`"
    return LINK.sub(link, text)


def with_facts(text: str) -> str:
    """The page of quirks, below each heading where the quirk is and how it is repaired, from the registry."""
    def heading(match: re.Match) -> str:
        quirk = QUIRKS[match[1]]
        repair = f"Repaired by `{quirk.where}`: {quirk.repaired}." if quirk.repaired and quirk.where else \
            "There is no repair."
        if quirk.where in ("Config.repairs", "ConstellationConfig.repairs"):
            repair = f"Repaired by `repairs: [{quirk.id}]`: {quirk.repaired}."
        return f"{match[0]}\n\n<small>In `port/{quirk.file}`. {repair}</small>\n"
    return re.sub(r"^### (Q\d\d)\b.*$", heading, text, flags=re.M)


def gather(out: Path = OUT) -> list[str]:
    """Write every page below `out`, in place of what was there; returns their places."""
    shutil.rmtree(out, ignore_errors=True)
    pages = {path.relative_to(ROOT / "docs").as_posix(): path for path in sorted((ROOT / "docs").rglob("*.md"))}
    pages |= {place: ROOT / source for place, source in ROOT_PAGES.items()}
    for place, source in pages.items():
        text = relinked(source.read_text(encoding="utf-8"), source, place, out)
        if place == "explanation/quirks.md":
            text = with_facts(text)
        if place in ALONE_PAGES:
            text = ALONE + text
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".png", ".svg", ".css"):
            target = out / path.relative_to(ROOT / "docs")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    (out / notebook.PLACE).write_text(notebook.notebook(), encoding="utf-8")
    for place, page in WRITTEN.items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        (out / place).write_text(page(), encoding="utf-8")
    return [*pages, *WRITTEN]


def command(out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the pages.")] = OUT) -> None:
    """Gather the pages of the site in a folder: those in `docs/`, and those that programs write."""
    print(f"{len(gather(out))} pages in {out}")


main = Program("python -m pipelines.pages", command)


if __name__ == "__main__":
    raise SystemExit(main())
