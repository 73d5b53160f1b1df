# SPDX-License-Identifier: MIT
"""--help of every command of `trit`, of train_cifar10 and of the benchmark programs, as far as they are built: every
option says what it takes in words, in lines of at most 100 columns, and there is an example."""
import pathlib
import subprocess
import unittest

from trit_files import TRIT

COMMANDS = ("info", "eval", "run", "pack", "convert", "diff", "bench")
MAX_COLUMNS = 100
REFUSED = {
    "a range that no person would write": r"\d{8,}|\[\d+ - |\de\+\d+",
    "the name of a C++ type": r"\b(U?INT|FLOAT|TEXT|BOOLEAN|ENUM)\b",
    "CLI11's notation of a condition": r":[A-Z]{4,}|:\{|:\d|FILE:|\b[A-Z]=",
}


def help_texts() -> dict[tuple[str, ...], str]:
    """Command line without --help -> text."""
    folder = pathlib.Path(TRIT).parent
    commands = [(TRIT,), *((TRIT, command) for command in COMMANDS)]
    commands += [(str(path),) for path in sorted(folder.glob("bench_*"))
                 if path.suffix == "" and path.name != "bench_torch_call"]
    commands += [(str(path),) for path in folder.glob("train_cifar10")]
    return {command: subprocess.run([*command, "--help"], check=True, capture_output=True, text=True).stdout
            for command in commands}


class HelpTest(unittest.TestCase):
    def test_every_help(self) -> None:
        texts = help_texts()
        for command, text in texts.items():
            name = " ".join((pathlib.Path(command[0]).name, *command[1:]))
            for line in text.splitlines():
                with self.subTest(command=name, line=line):
                    self.assertLessEqual(len(line), MAX_COLUMNS)
                    for what, pattern in REFUSED.items():
                        self.assertNotRegex(line, pattern, what)
            with self.subTest(command=name):
                self.assertRegex(text, f"(?m)^Example: .*{name}")

    def test_common_options_are_named(self) -> None:
        """The summary says which commands take which of the common options."""
        texts = help_texts()
        takes = {option: [c for c in COMMANDS if f"  {option} " in texts[TRIT, c]] for option in ("--json", "--threads", "--backend")}
        self.assertEqual(takes, {"--json": list(COMMANDS), "--threads": ["eval", "run", "bench"],
                                 "--backend": ["info", "eval", "run", "bench"]})
        summary = " ".join(texts[TRIT,].split())
        self.assertIn("Every command takes --json; info, eval, run and bench take --backend; eval, run and bench take --threads.",
                      summary)


if __name__ == "__main__":
    unittest.main()
