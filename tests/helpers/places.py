"""Where the tests find the project and the authors' files."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or ROOT.parent / "shared" / "upstream-data")
