import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_request_sets_that_are_meant_to_break_it(smollm2_gguf):
    """Each is right against requests computed alone, and all of them stay within the memory that was planned."""
    script = Path(__file__).with_name("hard_requests.py")
    done = subprocess.run([sys.executable, script, smollm2_gguf], check=True, capture_output=True, text=True)
    *sets, memory = map(json.loads, done.stdout.splitlines())
    assert len(sets) == 6
    for row in sets:
        assert row["right"] and row["worst"] <= 1e-4, row
    assert memory["grown_gib"] <= memory["budget_gib"]
