"""What the tests share: eight host devices, the lent data, the small real model."""

import os
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def lent():
    """`lent("mmlu/dev")` is that path in the lent data, or skips the test saying what is missing."""
    folder = Path(os.environ.get("IMITATION_TEST_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        path = folder / name
        if not path.exists():
            pytest.skip(f"needs {name} in the folder that IMITATION_TEST_DATA names ({folder})")
        return path

    return find


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as launch/test.sh unpacks it, or skips."""
    path = Path(os.environ.get("IMITATION_TEST_GGUF", ROOT / ".cache" / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    if not path.exists():
        pytest.skip(f"needs the SmolLM2 GGUF file that IMITATION_TEST_GGUF names ({path}); launch/test.sh fetches it")
    return path
