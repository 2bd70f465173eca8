#!/usr/bin/env python3
"""Make the DOCX, EPUB and PDF documents of the sample handbook.

The Markdown, HTML and plain-text documents under examples/handbook/ are
written by hand where they lie. The other formats are generated from the
Markdown files under tools/examples/sources/ and committed, so that nobody
needs this script to use the handbook; run it after changing a source:

    tools/examples/build_handbook.py [NAME…]     NAME: part of a file name

It needs pandoc; for the PDF files also weasyprint (`pip install weasyprint`)
and the fonts DejaVu Sans and Noto Sans CJK (Debian: fonts-dejavu-core,
fonts-noto-cjk), of which only the glyphs in use are embedded. Dates and identifiers in the files are fixed, therefore the
same tools give the same bytes.
"""

import os
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
SOURCES = TOOLS / "sources"
HANDBOOK = TOOLS.parent.parent / "examples" / "handbook"

# Which format each source becomes.
FORMATS = {
    "en/travel-policy": "pdf",
    "en/transformer-test-procedure": "pdf",
    "en/leave-and-parental-leave": "docx",
    "en/data-protection": "docx",
    "en/warranty-and-service": "epub",
    "zh/车间安全操作规程": "pdf",
    "zh/应急预案与联系电话": "pdf",
    "zh/考勤与休假制度": "docx",
    "zh/质量检验管理规定": "docx",
    "zh/新员工入职指南": "epub",
}

EPOCH = "1775001600"  # 2026-04-01: the date that goes into every file

# -smart keeps quotes and dashes as they are written in the source.
PANDOC = ["pandoc", "--from=markdown-smart"]

CSS = """
@page { size: A4; margin: 24mm 22mm 22mm 22mm;
        @bottom-center { content: counter(page) " / " counter(pages); font-size: 8pt } }
body { font-family: "DejaVu Sans", sans-serif; font-size: 9.5pt; line-height: 1.55; hyphens: none }
body:lang(zh) { font-family: "Noto Sans CJK SC", sans-serif; font-size: 10.5pt }
h1 { font-size: 19pt } h2 { font-size: 13.5pt } h3 { font-size: 11.5pt }
h2, h3 { break-after: avoid } p, li, tr { break-inside: avoid }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border: 0.5pt solid #777; padding: 3pt 9pt; text-align: left }
"""


def run(args):
    """Run one tool with the fixed date; its errors stop the script."""
    subprocess.run(args, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH})


def make_docx(source, target):
    """The source's first heading becomes the title, the next levels move up."""
    run([*PANDOC, "--shift-heading-level-by=-1", "-o", str(target), str(source)])


def make_epub(source, target):
    """One chapter for each first-level heading."""
    ident = uuid.uuid5(uuid.NAMESPACE_URL, "holdfast/examples/" + target.name)
    run([*PANDOC, "--epub-chapter-level=1", "-M", f"identifier=urn:uuid:{ident}",
         "-o", str(target), str(source)])
    # pandoc stamps the members with the current time: pack them again.
    with zipfile.ZipFile(target) as old:
        members = [(item.filename, old.read(item)) for item in old.infolist()]
    with zipfile.ZipFile(target, "w") as new:
        for name, data in members:
            item = zipfile.ZipInfo(name, (2026, 4, 1, 0, 0, 0))
            # The EPUB standard wants the first member, mimetype, uncompressed.
            item.compress_type = (zipfile.ZIP_STORED if name == "mimetype"
                                  else zipfile.ZIP_DEFLATED)
            new.writestr(item, data)


def make_pdf(source, target):
    """Markdown to HTML with pandoc, HTML to PDF with weasyprint."""
    import weasyprint

    body = subprocess.run([*PANDOC, "--to=html5", str(source)], check=True,
                          capture_output=True, text=True).stdout
    lang = "zh-CN" if source.parent.name == "zh" else "en"
    os.environ["SOURCE_DATE_EPOCH"] = EPOCH
    page = (f'<!DOCTYPE html><html lang="{lang}"><head><meta charset="utf-8">'
            f"<title>{source.stem}</title><style>{CSS}</style></head>"
            f"<body>{body}</body></html>")
    ident = uuid.uuid5(uuid.NAMESPACE_URL, "holdfast/examples/" + target.name)
    weasyprint.HTML(string=page).write_pdf(str(target), pdf_identifier=ident.bytes)


MAKERS = {"docx": make_docx, "epub": make_epub, "pdf": make_pdf}


def main(names):
    for stem, kind in FORMATS.items():
        if names and not any(name in stem for name in names):
            continue
        target = HANDBOOK / f"{stem}.{kind}"
        target.parent.mkdir(parents=True, exist_ok=True)
        MAKERS[kind](SOURCES / f"{stem}.md", target)
        print(f"{target.relative_to(HANDBOOK)}  {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
