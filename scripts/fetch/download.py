# SPDX-License-Identifier: MIT
"""Downloads one file over HTTP(S), with resumption, a checksum and short time-outs."""
import hashlib
import http.client
import pathlib
import shutil
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from .common import CONNECT_SECONDS, DataError, say

READ_SECONDS = 30
ATTEMPTS = 3
CHUNK = 1 << 16


class Meter:
    """Progress: one line that is redrawn on a terminal, otherwise a new line every ten seconds."""

    def __init__(self, title: str, start: int, total: int | None) -> None:
        self.title, self.first, self.total = title, start, total
        self.terminal = sys.stderr.isatty()
        self.begun = self.shown = time.monotonic()
        self.drawn = False

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self.shown < (0.2 if self.terminal else 10):
            return
        self.shown = now
        rate = (done - self.first) / (now - self.begun)
        text = f"{self.title} {done / 1e6:.1f} MB"
        if self.total:
            left = (self.total - done) / rate if rate else 0
            text += f" of {self.total / 1e6:.1f}, {100 * done // self.total}%, ETA {left / 60:.0f}:{left % 60:02.0f}"
        text += f", {rate / 1e6:.1f} MB/s"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{text[:width]}\x1b[K", end="", file=sys.stderr, flush=True)
            self.drawn = True
        else:
            say(text)

    def end(self) -> None:
        if self.drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def check_name_resolves(url: str) -> None:
    """getaddrinfo has no time-out of its own: with a dead resolver it blocks for minutes."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.getproxies().get(parts.scheme):
        return
    answer: list = []

    def look_up() -> None:
        try:
            answer.append(socket.getaddrinfo(parts.hostname, parts.port or parts.scheme, type=socket.SOCK_STREAM))
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not answer:
        raise DataError(f"{url}: no address for {parts.hostname} within {CONNECT_SECONDS} s")
    if isinstance(answer[0], OSError):
        raise DataError(f"{url}: {parts.hostname}: {answer[0].strerror}")


def total_of(response: http.client.HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length and length.isdigit() else None


def fetch_rest(url: str, part: pathlib.Path) -> None:
    """Appends the missing bytes to `part`. Raises DataError for network errors, OSError for disk errors."""
    start = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=CONNECT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # no bytes after `start`: the file is complete, and the checksum is compared next
            return
        raise DataError(f"{url}: {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url}: {getattr(error, 'reason', None) or error}") from None
    with response:
        if start and response.status != 206:  # the server does not resume: it sends the whole file
            start = 0
        total = total_of(response, start)
        meter = Meter(part.name.removesuffix(".part"), start, total)
        done = start
        raw = getattr(getattr(response.fp, "raw", None), "_sock", None)
        if raw is not None:
            raw.settimeout(READ_SECONDS)
        try:
            with part.open("ab" if start else "wb") as file:
                while True:
                    try:
                        chunk = response.read(CHUNK)
                    except (OSError, http.client.HTTPException) as error:
                        raise DataError(f"{url}: broken off after {done} bytes: {error}") from None
                    if not chunk:
                        break
                    file.write(chunk)
                    done += len(chunk)
                    meter.show(done)
        finally:
            meter.end()
        if total is not None and done != total:
            raise DataError(f"{url}: broken off after {done} of {total} bytes")


def md5_of(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def download(url: str, md5: str, part: pathlib.Path) -> None:
    """Downloads `url` to `part` and compares its MD5 with `md5`."""
    check_name_resolves(url)
    for attempt in range(1, ATTEMPTS + 1):
        resumed = part.exists() and part.stat().st_size > 0
        say(f"{'resuming' if resumed else 'fetching'} {url}")
        try:
            fetch_rest(url, part)
        except DataError as error:
            # Another attempt is useful only if bytes arrived: it resumes after them.
            if attempt == ATTEMPTS or not (part.exists() and part.stat().st_size > 0):
                raise
            say(str(error))
            continue
        found = md5_of(part)
        if found == md5:
            return
        size = part.stat().st_size
        part.unlink()
        if attempt == ATTEMPTS or not resumed:
            raise DataError(f"{url}: MD5 {found} of {size} bytes, wanted {md5}")
        say(f"MD5 {found} of {size} resumed bytes, wanted {md5}: starting again")
