"""What holds of the package as a whole: its layers, as .importlinter writes them down, and the shape of its files."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "imitation_jax").rglob("*.py"))
# Not in this process: it takes over the logging.
LINT = "import sys; from importlinter import cli; sys.exit(cli.lint_imports(no_cache=True))"


def test_no_package_imports_from_a_layer_above():
    done = subprocess.run([sys.executable, "-c", LINT], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[done.stdout.find("Contracts") :] + done.stderr


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_can_be_read_at_once():
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not {path: length for path, length in lengths.items() if length > 350}


def test_no_two_files_have_one_name():
    """But each package's head and keys, GGUF's weights and tokenizer, and a command with what it runs."""
    commands = {path.name for path in FILES if path.parent.name == "imitation_jax"}
    counts = Counter(path.name for path in FILES if path.name not in ("__init__.py", "config.py", "gguf.py"))
    assert {name: count for name, count in counts.items() if count > 1 + (name in commands)} == {}
