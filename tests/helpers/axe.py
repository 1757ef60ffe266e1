"""axe-core, which looks for what keeps people from reading a page: npm fetches it once, and it is checked."""

import base64
import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

VERSION = "4.14.1"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unlearning-rtt-tests"


def source() -> str:
    """Return axe.min.js. Raises OSError where npm is missing or fails, ValueError where it is another file."""
    kept = CACHE / f"axe-core-{VERSION}.tgz"
    if not kept.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "pack", "--silent", f"axe-core@{VERSION}", "--pack-destination", str(CACHE)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise OSError(f"npm pack: {done.stderr.strip()[-300:]}")
    if base64.b64encode(hashlib.sha512(kept.read_bytes()).digest()).decode() != SHA512:
        kept.unlink()
        raise ValueError(f"{kept}: its sha512 is not {SHA512}, so it was removed; start again")
    with tarfile.open(kept) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()
