# SPDX-License-Identifier: MIT
"""scripts/get_data.py against a server on this machine: resume, checksum, truncation, corrupt archives, and the
data set that it falls back to if a source fails. Needs no network."""
import hashlib
import http.server
import io
import os
import pathlib
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parents[2] / "scripts" / "get_data.py"
RECORDS, RECORD = 10_000, 3073
FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


def archive(records: int = RECORDS, label: int = 3) -> bytes:
    """A .tar.gz in the layout of the real one."""
    data = (bytes([label]) + bytes(RECORD - 1)) * records
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name in FILES:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


class Server:
    """Serves `body`. `cut_after`: each answer ends after so many bytes, as if the connection broke; None: complete."""

    def __init__(self, body: bytes, cut_after: int | None = None, ranges: bool = True, slow: bool = False) -> None:
        self.requests: list[str | None] = []  # the Range header of each
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                server.requests.append(wanted)
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and ranges else 0
                if start and start >= len(body):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body) - start))
                self.end_headers()
                part = body[start:] if cut_after is None else body[start:start + cut_after]
                if slow:
                    self.wfile.write(part[:len(part) // 2])
                    self.wfile.flush()
                    time.sleep(20)
                self.wfile.write(part)

            def log_message(self, *_: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self.http.server_port}/cifar-10-binary.tar.gz"

    def __enter__(self) -> "Server":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.http.shutdown()
        self.http.server_close()


class GetDataTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.body = archive()
        cls.md5 = hashlib.md5(cls.body).hexdigest()

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.cache = self.root / "trit"

    def environment(self, url: str, md5: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items()
                if key != "TRIT_CIFAR10" and not key.lower().endswith("_proxy")}
        # No apt-get on this PATH: what is tried after CIFAR-10 fails at once.
        return {**kept, "XDG_CACHE_HOME": str(self.root), "TRIT_CIFAR10_URL": url, "TRIT_CIFAR10_MD5": md5,
                "PATH": str(self.root)}

    def get(self, *arguments: str, url: str = "http://127.0.0.1:1/x", md5: str = "", **environment: str):
        return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=120,
                              env={**self.environment(url, md5 or self.md5), **environment})

    def assert_nothing_half_done(self) -> None:
        left = sorted(path.name for path in self.cache.iterdir() if not path.name.startswith("."))
        self.assertFalse([name for name in left if ".new-" in name or ".old-" in name or name == "cifar10"], left)

    def test_fetches_unpacks_and_then_leaves_the_network_alone(self) -> None:
        with Server(self.body) as server:
            first = self.get("--dataset", "cifar10", url=server.url)
            self.assertEqual(first.returncode, 0, first.stderr)
            self.assertEqual(first.stdout, f"cifar10 {self.cache / 'cifar10'}\n")
            second = self.get(url=server.url)
            self.assertEqual((second.returncode, second.stdout), (0, first.stdout))
            self.assertEqual(len(server.requests), 1)
        sizes = {path.stat().st_size for path in (self.cache / "cifar10" / "cifar-10-batches-bin").iterdir()}
        self.assertEqual(sizes, {RECORDS * RECORD})
        self.assertEqual(sorted(path.name for path in self.cache.iterdir()), [".lock", "cifar10"])

    def test_resumes_within_a_run(self) -> None:
        with Server(self.body, cut_after=len(self.body) // 2) as server:
            result = self.get("--dataset", "cifar10", url=server.url)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(server.requests[:2], [None, f"bytes={len(self.body) // 2}-"])

    def test_resumes_in_the_next_run(self) -> None:
        cut = len(self.body) // 5
        with Server(self.body, cut_after=cut) as server:  # three attempts are too few for five parts
            result = self.get("--dataset", "cifar10", url=server.url)
            self.assertEqual((result.returncode, result.stdout), (1, ""))
            self.assertIn("broken off after", result.stderr)
            self.assert_nothing_half_done()
        with Server(self.body) as server:
            result = self.get("--dataset", "cifar10", url=server.url)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(server.requests, [f"bytes={3 * cut}-"])

    def test_a_server_without_ranges_sends_all_again(self) -> None:
        self.cache.mkdir()
        (self.cache / "cifar-10-binary.tar.gz.part").write_bytes(self.body[:1000])
        with Server(self.body, ranges=False) as server:
            result = self.get("--dataset", "cifar10", url=server.url)
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_wrong_start_is_fetched_again(self) -> None:
        self.cache.mkdir()
        (self.cache / "cifar-10-binary.tar.gz.part").write_bytes(bytes(1000))
        with Server(self.body) as server:
            result = self.get("--dataset", "cifar10", url=server.url)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(server.requests, ["bytes=1000-", None])

    def test_checksum(self) -> None:
        with Server(self.body) as server:
            result = self.get("--dataset", "cifar10", url=server.url, md5="0" * 32)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn(f"MD5 {self.md5}", result.stderr)
        self.assert_nothing_half_done()
        self.assertFalse((self.cache / "cifar-10-binary.tar.gz.part").exists())

    def test_archives_with_wrong_contents(self) -> None:
        for name, body, message in (("short", archive(records=RECORDS - 1), "bytes, wanted 30730000"),
                                    ("label", archive(label=10), "label 10, wanted 0..9, at offset 0"),
                                    ("truncated", self.body[:-1000], "part: "),
                                    ("other", b"<html>no</html>" * 100, "part: ")):
            with self.subTest(name), Server(body) as server:
                (self.cache / "cifar-10-binary.tar.gz.part").unlink(missing_ok=True)
                result = self.get("--dataset", "cifar10", url=server.url, md5=hashlib.md5(body).hexdigest())
                self.assertEqual((result.returncode, result.stdout), (1, ""), result.stderr)
                self.assertIn(message, result.stderr)
                self.assertNotIn("Traceback", result.stderr)
                self.assert_nothing_half_done()

    def test_an_invalid_cache_is_replaced(self) -> None:
        broken = self.cache / "cifar10" / "cifar-10-batches-bin"
        broken.mkdir(parents=True)
        (broken / "data_batch_1.bin").write_bytes(b"cut")
        (self.cache / "cifar10.new-killed").mkdir()
        with Server(self.body) as server:
            result = self.get("--dataset", "cifar10", url=server.url)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((broken / "data_batch_1.bin").stat().st_size, RECORDS * RECORD)
        self.assertEqual(sorted(path.name for path in self.cache.iterdir()), [".lock", "cifar10"])

    def test_auto_says_loudly_what_it_takes_instead(self) -> None:
        result = self.get()
        self.assertEqual(result.returncode, 0, result.stderr)
        # The package may be installed on this machine; there is no apt-get on the PATH of this test.
        taken = result.stdout.split()[0]
        self.assertIn(taken, ("drawn", "fashion-mnist"))
        self.assertIn("COULD NOT GET CIFAR-10", result.stderr)
        self.assertIn(taken.upper(), result.stderr)
        if taken == "drawn":
            self.assertEqual(result.stdout, "drawn\n")
            self.assertIn("no apt-get", result.stderr)
        again = self.get()  # the failure is remembered: no second wait
        self.assertIn("minutes ago", again.stderr)

    def test_a_named_data_set_is_required(self) -> None:
        result = self.get("--dataset", "cifar10")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(self.get("--dataset", "drawn").stdout, "drawn\n")
        self.assertEqual(self.get("--dataset", "imagenet").returncode, 2)

    def test_a_given_folder_must_be_valid(self) -> None:
        folder = self.root / "given"
        result = self.get("--data", str(folder))
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn("no such folder", result.stderr)
        (folder / "cifar-10-batches-bin").mkdir(parents=True)
        for name in FILES:
            with (folder / "cifar-10-batches-bin" / name).open("wb") as file:
                file.truncate(RECORDS * RECORD)
        good = self.get("--data", str(folder))
        self.assertEqual((good.returncode, good.stdout), (0, f"cifar10 {folder}\n"))
        self.assertEqual(self.get(TRIT_CIFAR10=str(folder)).stdout, good.stdout)
        with (folder / "cifar-10-batches-bin" / FILES[2]).open("wb") as file:
            file.truncate(RECORDS * RECORD - 1)
        bad = self.get(TRIT_CIFAR10=str(folder))
        self.assertEqual((bad.returncode, bad.stdout), (1, ""))
        self.assertIn(f"{FILES[2]}: 30729999 bytes, wanted 30730000", bad.stderr)

    def test_interrupt_keeps_the_part(self) -> None:
        with Server(self.body, slow=True) as server:
            process = subprocess.Popen([sys.executable, SCRIPT, "--dataset", "cifar10"], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, env=self.environment(server.url, self.md5))
            part = self.cache / "cifar-10-binary.tar.gz.part"
            for _ in range(200):
                if part.exists():
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        self.assertEqual((process.returncode, out), (130, ""), err)
        self.assertTrue(part.exists())
        self.assert_nothing_half_done()


if __name__ == "__main__":
    unittest.main()
