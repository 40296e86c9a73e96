import re

import pytest

# Kind -> (type of so many chips in `gcloud compute tpus accelerator-types list`, software version, GKE's node label).
KNOWN = {
    "v4:4x4x4": ("v4-128", "tpu-ubuntu2204-base", "tpu-v4-podslice"),
    "v5e:8x8": ("v5litepod-64", "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice"),
    "v5:4x4x4": ("v5p-128", "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v5p:4x4x8": ("v5p-256", "v2-alpha-tpuv5", "tpu-v5p-slice"),
    "v6e:16x16": ("v6e-256", "v2-alpha-tpuv6e", "tpu-v6e-slice"),
}


@pytest.fixture(scope="module")
def read(shell):
    def run(name: str):
        return shell(
            "source launch/setup.sh; source launch/slices.sh; "
            f"slice '{name}'; echo $SLICES $KIND $SHAPE $CHIPS $TYPE $VERSION $LABEL"
        )

    return run


@pytest.mark.parametrize("name", KNOWN)
def test_a_slice_is_what_google_calls_it(read, name):
    kind, shape = name.split(":")
    chips = eval(shape.replace("x", "*"))
    assert read(name).stdout.split() == ["1", kind, shape, str(chips), *KNOWN[name]]


def test_several_slices(read):
    assert read("2*v5e:8x8").stdout.split()[:5] == ["2", "v5e", "8x8", "64", "v5litepod-64"]


def test_every_slice_of_the_configs_is_known(read, config_slices):
    assert len(config_slices) > 5
    for name in sorted(config_slices):
        assert read(name).returncode == 0, name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5e", "write KIND:AxB"),
        ("v5e:8x0", "write KIND:AxB"),
        ("v5e:8x", "write KIND:AxB"),
        ("0*v5e:8x8", "write KIND:AxB"),
        ("v9:2x2", "unknown kind v9"),
        ("v5e:2x2x2", "v5e slices have 2 dimensions"),
        ("v4:8x8", "v4 slices have 3 dimensions"),
    ],
)
def test_what_is_no_slice_is_one_line(read, name, said):
    done = read(name)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(f"error: slice {re.escape(name)}: {said}.*\n", done.stderr)
