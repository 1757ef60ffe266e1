"""Put the files of the workflow into the wheel, as `rtt/shipped` (scripts/rtt/places.py).

All else stands in pyproject.toml. An editable install needs no copy: the code finds the clone around it.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = (
    "Snakefile", "LICENSE", "rules/*.smk", "envs/*.yaml", "report/*.rst", "data/sources.tsv",
    "config/*.yaml", "config/*.json", "config/deepspeed/*.json", "config/models/*.yaml", "config/modes/*.yaml",
    "profiles/*/config.yaml", "profiles/*/site.example.yaml", "requirements*.lock", "requirements*.txt",
)  # fmt: skip


class BuildPy(build_py):
    """Copy SHIPPED beside the package's modules."""

    def run(self):
        """Build the package, then copy."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "rtt", "shipped")
        shutil.rmtree(folder, ignore_errors=True)
        for pattern in SHIPPED:
            found = sorted(ROOT.glob(pattern))
            assert found, f"{pattern}: no such file, so this is no whole copy of the project"
            for path in found:
                target = folder / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildPy})
