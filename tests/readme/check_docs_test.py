# SPDX-License-Identifier: MIT
"""scripts/check_docs.py finds each kind of fault in a small tree of documents, and nothing in a good one."""

import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "README.md": "# trit\n\n[index](docs/README.md), [below](#a-part-of-it)\n\n## A part of it\n",
    "docs/README.md": "# Documents\n\n[design](design/one.md#what-bounds-it)\n",
    "docs/design/one.md": "# One\n\n    a --b--> c\n\n## What bounds `it`\n",
    "CONTRIBUTING.md": "# Layers\n\n    base <- io <- runtime\n            io <- torch\n",
    "src/a.cpp": "// docs/design/one.md\n",
    "src/runtime/b.cpp": '#include "base/c.h"\n#include "io/c.h"\n#include "runtime/c.h"\n#include "trit/c.h"\n',
    "src/torch/b.cpp": '#include "base/c.h"\n',
    "bench/tables.py": "",
    "bench/plot_speed.py": "",
}
FAULTS = {
    "a file that is not there": ("docs/README.md", "[none](design/none.md)", "no such file"),
    "a heading that is not there": ("docs/README.md", "[none](design/one.md#none)", "no such heading"),
    "a heading of its own that is not there": ("README.md", "[none](#none)", "no such heading"),
    "a source that names no document": ("src/a.cpp", "// docs/none.md", "docs/none.md does not exist"),
    "a folder that includes one above it": ("src/base/b.cpp", '#include "io/c.h"', "src/base/b.cpp: includes io/c.h"),
    "a folder that includes one beside it": ("src/torch/b.cpp", '#include "runtime/c.h"', "torch may include base, io, torch"),
    "a long design page": ("docs/design/one.md", "line\n" * 150, "150 are allowed"),
    "a long line": ("docs/README.md", "word " * 21, "100 are allowed"),
    "a path that is not there": ("README.md", "<!-- paths -->\n| `src/b.cpp` |\n<!-- end paths -->", "src/b.cpp does not exist"),
    "a page without a link": ("docs/alone.md", "# Alone\n", "no document links to it"),
    "a design page without a drawing": ("docs/design/two.md", "# Two\n\n## Part\n\n    a --> b\n", "no drawing"),
    "a table out of date": ("bench/tables.py", "import sys\nsys.exit('docs/results/x.md is out of date')", "is out of date"),
}


class CheckDocs(unittest.TestCase):
    def check(self, file: str = "", added: str = "") -> subprocess.CompletedProcess:
        """Its run on the good documents, with a text added to one of them."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name, text in {**GOOD, file: GOOD.get(file, "") + "\n" + added + "\n"}.items() if file else GOOD.items():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
            (root / "scripts").mkdir()
            script = shutil.copy(ROOT / "scripts" / "check_docs.py", root / "scripts")
            return subprocess.run([sys.executable, script, "--paths"], capture_output=True, text=True)

    def test_good_documents(self) -> None:
        done = self.check()
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_code_and_tables_may_be_wide(self) -> None:
        for text in ("```sh\n" + "word " * 30 + "\n```", "    " + "word " * 30, "| " + "word " * 30 + " |"):
            self.assertEqual(self.check("docs/README.md", text).returncode, 0, text)

    def test_faults(self) -> None:
        for name, (file, added, message) in FAULTS.items():
            with self.subTest(name):
                done = self.check(file, added)
                self.assertEqual(done.returncode, 1)
                self.assertIn(message, done.stderr)


if __name__ == "__main__":
    unittest.main()
