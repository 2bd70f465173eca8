#!/usr/bin/env python3
"""Check the questions about the sample handbook against its documents.

    tools/examples/check_questions.py [QUESTIONS [HANDBOOK]]

Checked for every question: its fields; for one that has an answer also that
the document exists, that the evidence is in the document's text, that a gold
value is in the evidence, that the question does not contain the answer, and
that it is a paraphrase: it shares no four words in a row with English evidence
and no six characters in a row with Chinese evidence (names get no exemption).
At the end the set as a whole, which counts as one check: enough questions,
enough of them unanswerable, few across languages, every document asked about.
Prints one line for each fault, then

    N passed, N failed

Needs pdftotext for PDF documents; everything else is the standard library.
"""

import html.parser
import json
import re
import subprocess
import sys
import unicodedata
import zipfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent.parent
QUESTIONS = ROOT / "tests" / "data" / "handbook" / "questions.jsonl"
HANDBOOK = ROOT / "examples" / "handbook"

MIN_PER_LANG, MIN_UNANSWERABLE, MIN_UNANSWERABLE_PER_LANG, MAX_CROSS = 32, 14, 7, 6
SHARED_WORDS, SHARED_CHARS = 4, 6

FIELDS = {"id": str, "lang": str, "question": str, "answers": list,
          "document": (str, type(None)), "evidence": (str, type(None)),
          "answerable": bool}


class HtmlText(html.parser.HTMLParser):
    """Text of a page: tags become spaces, scripts and styles are dropped."""

    def __init__(self):
        super().__init__()
        self.parts, self.hidden = [], 0

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in ("script", "style", "title")
        self.parts.append("" if tag in ("a", "b", "em", "i", "strong", "span") else " ")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style", "title")
        self.parts.append("" if tag in ("a", "b", "em", "i", "strong", "span") else " ")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def html_text(markup):
    parser = HtmlText()
    parser.feed(markup)
    parser.close()
    return "".join(parser.parts)


def docx_text(path):
    """Paragraphs of the main part, one a line; table cells are paragraphs."""
    ns = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
    with zipfile.ZipFile(path) as package:
        body = ElementTree.fromstring(package.read("word/document.xml"))
    return "\n".join("".join(t.text or "" for t in p.iter(ns + "t"))
                     for p in body.iter(ns + "p"))


def epub_text(path):
    with zipfile.ZipFile(path) as package:
        names = sorted(n for n in package.namelist()
                       if re.search(r"text/.*\.x?html$", n))
        return "\n".join(html_text(package.read(n).decode("utf-8")) for n in names)


def pdf_text(path):
    return subprocess.run(["pdftotext", "-enc", "UTF-8", str(path), "-"], check=True,
                          capture_output=True).stdout.decode("utf-8")


def document_text(path):
    kind = path.suffix.lower()
    if kind == ".pdf":
        return pdf_text(path)
    if kind == ".docx":
        return docx_text(path)
    if kind == ".epub":
        return epub_text(path)
    text = path.read_text(encoding="utf-8")
    if kind == ".html":
        return html_text(text)
    if kind == ".md":  # table bars and emphasis are markup, not text
        return re.sub(r"[|*`]", " ", text)
    return text


CJK = r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]"


def squeeze(text):
    """One space for any white space, none beside a Chinese character."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(rf"(?<={CJK}) | (?={CJK})", "", text)


def fold(text):
    """The form in which gold values are compared: NFKC, lower case, no
    punctuation, no spaces. The per cent sign stays: without it "11%" would be
    found in any number that contains 11."""
    text = unicodedata.normalize("NFKC", text).lower()
    return "".join(c for c in text if not c.isspace()
                   and (c == "%" or not unicodedata.category(c).startswith("P")))


def words(text):
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join(c for c in text if not unicodedata.category(c).startswith("P"))
    return text.split()


def shared_run(question, evidence, lang):
    """The first run of words (characters) found in both, or None."""
    if lang == "en":
        split, size, glue = words, SHARED_WORDS, " "
    else:
        split, size, glue = (lambda text: list(fold(text))), SHARED_CHARS, ""

    def runs(text):
        units = split(text)
        return [tuple(units[i:i + size]) for i in range(len(units) - size + 1)]

    known = set(runs(evidence))
    return next((glue.join(r) for r in runs(question) if r in known), None)


def field_faults(q):
    faults = [f"field {name} is missing or of the wrong type"
              for name, kind in FIELDS.items()
              if name not in q or not isinstance(q[name], kind)]
    if faults:
        return faults
    if q["lang"] not in ("en", "zh"):
        faults.append(f"unknown language {q['lang']!r}")
    if bool(re.search(r"[\u4e00-\u9fff]", q["question"])) != (q["lang"] == "zh"):
        faults.append("the question is not written in its language")
    extra = set(q) - set(FIELDS) - {"cross"}
    if extra:
        faults.append("unknown fields " + ", ".join(sorted(extra)))
    if not q["answerable"] and (q["answers"] or q["document"] or q["evidence"]):
        faults.append("marked unanswerable but carries an answer")
    return faults


def answer_faults(q, handbook, texts):
    faults = []
    name = q["document"] or ""
    path = handbook / name
    if not name or not path.is_file():
        return [f"no document {name!r}"]
    if name not in texts:
        texts[name] = squeeze(document_text(path))
    doc_lang = name.split("/")[0]
    if bool(q.get("cross")) != (doc_lang != q["lang"]):
        faults.append(f"a {q['lang']} question about a {doc_lang} document and its "
                      "mark \"cross\" do not fit")
    evidence = q["evidence"] or ""
    if not evidence or squeeze(evidence) not in texts[name]:
        faults.append(f"the evidence is not in {name}")
    if not any(fold(a) and fold(a) in fold(evidence) for a in q["answers"]):
        faults.append("no gold value is in the evidence")
    faults += [f"the gold value {a!r} is too short to mean anything"
               for a in q["answers"] if len(fold(a)) < 2]
    faults += [f"the question gives away its answer {a!r}"
               for a in q["answers"] if fold(a) in fold(q["question"])]
    run = shared_run(q["question"], evidence, doc_lang)
    if run:
        faults.append(f"question and evidence share {run!r}")
    return faults


def set_faults(questions, handbook):
    """What must hold for all questions together."""
    faults = []
    for what in ("id", "question"):
        seen = [q.get(what) for q in questions]
        faults += [f"{what} {s!r} occurs twice" for s in sorted(
            {s for s in seen if s is not None and seen.count(s) > 1})]
    for lang in ("en", "zh"):
        mine = [q for q in questions if q.get("lang") == lang]
        if len(mine) < MIN_PER_LANG:
            faults.append(f"only {len(mine)} {lang} questions, {MIN_PER_LANG} wanted")
        none = sum(not q.get("answerable") for q in mine)
        if none < MIN_UNANSWERABLE_PER_LANG:
            faults.append(f"only {none} unanswerable {lang} questions, "
                          f"{MIN_UNANSWERABLE_PER_LANG} wanted")
    none = sum(not q.get("answerable") for q in questions)
    if none < MIN_UNANSWERABLE:
        faults.append(f"only {none} unanswerable questions, {MIN_UNANSWERABLE} wanted")
    cross = sum(bool(q.get("cross")) for q in questions)
    if cross > MAX_CROSS:
        faults.append(f"{cross} questions across languages, {MAX_CROSS} allowed")
    asked = {q.get("document") for q in questions}
    for path in sorted(p for p in handbook.rglob("*") if p.is_file()):
        name = path.relative_to(handbook).as_posix()
        if name not in asked:
            faults.append(f"no question about {name}")
    return faults


def main(argv):
    source = Path(argv[1]) if len(argv) > 1 else QUESTIONS
    handbook = Path(argv[2]) if len(argv) > 2 else HANDBOOK
    questions, texts, failed = [], {}, 0
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        try:
            q = json.loads(line)
        except ValueError as error:
            q, faults = {}, [f"not JSON: {error}"]
        else:
            faults = field_faults(q)
            if not faults and q["answerable"]:
                faults = answer_faults(q, handbook, texts)
        questions.append(q)
        failed += bool(faults)
        for fault in faults:
            print(f"{source.name}:{number}: {q.get('id', '?')}: {fault}")
    whole = set_faults(questions, handbook)
    for fault in whole:
        print(f"{source.name}: {fault}")
    count = {lang: sum(q.get("lang") == lang for q in questions) for lang in ("en", "zh")}
    print(f"{count['en']} en, {count['zh']} zh, "
          f"{sum(not q.get('answerable') for q in questions)} unanswerable, "
          f"{sum(bool(q.get('cross')) for q in questions)} across languages, "
          f"{len(texts)} documents")
    failed += bool(whole)
    print(f"{len(questions) + 1 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
