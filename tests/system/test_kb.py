#!/usr/bin/env python3
"""The kb command end to end, without a model: add, unchanged, list, search, ask, remove, bad files.

    python3 tests/system/test_kb.py build/release/holdfast
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

PROGRAM = os.environ.get("HOLDFAST", "build/release/holdfast")


class KnowledgeBase(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name)
        self.docs = self.root / "docs"
        self.docs.mkdir()
        (self.docs / "pump.md").write_text("# Pump\n\nThe pump QF-12A weighs 40 kg.\n")
        (self.docs / "zh.txt").write_bytes("变压器的质保期为36个月。食堂十二点开门。".encode("gb18030"))

    def kb(self, *words, status=0):
        run = subprocess.run([PROGRAM, "kb", *words, "--kb", str(self.root / "kb"), "--json"],
                             capture_output=True, encoding="utf-8", timeout=60)
        self.assertEqual(run.returncode, status, run.stderr)
        return json.loads(run.stdout) if run.stdout else run.stderr

    def test_life(self):
        added = self.kb("add", str(self.docs))
        self.assertEqual((added["added"], added["failed"]), (2, 0))
        again = self.kb("add", str(self.docs))
        self.assertEqual((again["unchanged"], again["version"]), (2, added["version"]))
        names = [d["name"] for d in self.kb("list")["documents"]]
        self.assertEqual(names, ["pump.md", "zh.txt"])
        hits = self.kb("search", "QF12A")["results"]
        self.assertEqual(hits[0]["document"]["name"], "pump.md")
        self.assertEqual(set(hits[0]), {"rank", "score", "document", "page", "span", "heading",
                                        "text"})
        answer = self.kb("ask", "-m", "none", "变压器的质保期有多长？")
        self.assertTrue(answer["found"])
        self.assertEqual(answer["citations"][0]["quote"], "变压器的质保期为36个月。")
        self.assertEqual(answer["citations"][0]["span"], [0, 13])
        silent = self.kb("ask", "-m", "none", "Who invented the telephone exchange in Boston?")
        self.assertEqual((silent["found"], silent["citations"]), (False, []))
        self.kb("remove", "zh.txt")
        self.assertEqual(self.kb("search", "质保期")["results"], [])

    def test_hostile_files(self):
        with zipfile.ZipFile(self.docs / "bomb.docx", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("word/document.xml", b"<a>" + b" " * (48 << 20) + b"</a>")
        with zipfile.ZipFile(self.docs / "entity.docx", "w") as archive:
            archive.writestr("word/document.xml", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">'
                             "]><w:document xmlns:w='w'><w:body><w:p><w:r><w:t>&x;</w:t></w:r></w:p>"
                             "</w:body></w:document>")
        (self.docs / "broken.pdf").write_bytes(b"%PDF-1.4\nnothing")
        (self.docs / "binary.txt").write_bytes(bytes(range(32)) * 50)
        added = self.kb("add", str(self.docs), status=1)
        outcome = {f["name"]: f for f in added["files"]}
        for name in ("bomb.docx", "entity.docx", "broken.pdf", "binary.txt"):
            self.assertEqual(outcome[name]["outcome"], "failed", name)
            self.assertTrue(outcome[name]["error"])
        self.assertEqual(added["added"], 2)

    def test_wrong_use(self):
        self.assertIn("there is none of that name", self.kb("list", status=1))
        self.kb("fly", status=2)
        self.kb("add", status=2)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        PROGRAM = sys.argv.pop(1)
    unittest.main()
