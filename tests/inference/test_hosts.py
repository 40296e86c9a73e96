import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def run(hosts: int, spec: str) -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("one_host.py")
    argv = [[sys.executable, script, str(port), str(hosts), str(host), spec] for host in range(hosts)]
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(args, env=env, text=True, **pipes) for args in argv]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    return json.loads(outputs[0][0].splitlines()[-1])


@pytest.mark.parametrize("spec", ["fsdp=2,tensor=2", "data=2,fsdp=2"])
def test_two_hosts_with_two_devices_each_give_what_one_host_gives(spec):
    one, two = run(1, "fsdp=1,tensor=2"), run(2, spec)
    np.testing.assert_allclose(two["logprobs"], one["logprobs"], atol=1e-4, rtol=0)
    assert two["ids"] == one["ids"]
