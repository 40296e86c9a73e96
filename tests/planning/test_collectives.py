"""Collectives read from modules that were really compiled, against bytes reckoned by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from imitation_jax.planning.collectives import Module, _axes, _groups, collectives

AXES = {"data": 2, "tensor": 4}
FLOAT = 4


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh(np.array(jax.devices()[:8]).reshape(2, 4), tuple(AXES))


def compiled(mesh: Mesh, function, shape: tuple[int, ...], spec: P, out: P | None = None) -> Module:
    """The module of `function` on each device's part of a float32 array."""
    mapped = jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec if out is None else out, check_vma=False)
    argument = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    return Module(jax.jit(mapped).lower(argument).compile().as_text())


def sent_by(module: Module) -> list[tuple[str, str, float, int]]:
    return [(one.kind, one.axes, one.sent, one.turns) for one in collectives(module, AXES)]


@pytest.mark.parametrize(
    ("axis", "function", "out", "expected"),
    [
        # Each device has 4 x 8 numbers. A reduction to all passes every number twice around, but for its own share.
        ("tensor", lambda x: jax.lax.psum(x, "tensor"), P("data"), ("all-reduce", 2 * 3 / 4 * 32 * FLOAT)),
        ("data", lambda x: jax.lax.psum(x, "data"), P(None, "tensor"), ("all-reduce", 2 * 1 / 2 * 32 * FLOAT)),
        # What it gathers is 4 times as large, and it has a quarter of that already.
        (
            "tensor",
            lambda x: jax.lax.all_gather(x, "tensor", axis=1, tiled=True),
            P("data"),
            ("all-gather", 3 / 4 * 4 * 32 * FLOAT),
        ),
        # The whole goes in, a quarter comes out.
        (
            "tensor",
            lambda x: jax.lax.psum_scatter(x, "tensor", scatter_dimension=1, tiled=True),
            P("data", "tensor"),
            ("reduce-scatter", 3 / 4 * 32 * FLOAT),
        ),
        (
            "tensor",
            lambda x: jax.lax.all_to_all(x, "tensor", 0, 1, tiled=True),
            P("data", "tensor"),
            ("all-to-all", 3 / 4 * 32 * FLOAT),
        ),
        (
            "data",
            lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]),
            P("data", "tensor"),
            ("collective-permute", 32 * FLOAT),
        ),
        (
            "data+tensor",
            lambda x: jax.lax.psum(x, ("data", "tensor")),
            P(),
            ("all-reduce", 2 * 7 / 8 * 32 * FLOAT),
        ),
    ],
)
def test_bytes_and_axes_of_each_kind(mesh, axis, function, out, expected):
    kind, sent = expected
    assert sent_by(compiled(mesh, function, (8, 32), P("data", "tensor"), out)) == [(kind, axis, sent, 1)]


def test_loops_in_loops_count_as_often_as_they_turn(mesh):
    """5 layers in each of 3 microbatches."""

    def outer(x, _):
        return jax.lax.scan(lambda x, _: (jnp.sin(jax.lax.psum(x, "tensor")), None), x, length=5)[0], None

    module = compiled(mesh, lambda x: jax.lax.scan(outer, x, length=3)[0], (8, 32), P("data", "tensor"))
    assert sent_by(module) == [("all-reduce", "tensor", 15 * 2 * 3 / 4 * 32 * FLOAT, 15)]


def test_a_loop_that_ends_when_the_data_say_counts_once(mesh):
    def loop(x):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 7, lambda x: jax.lax.psum(x, "tensor"), x)

    assert sent_by(compiled(mesh, loop, (8, 32), P("data", "tensor"))) == [
        ("all-reduce", "tensor", 2 * 3 / 4 * 32 * FLOAT, 1)
    ]


def test_what_is_on_one_device_sends_nothing(mesh):
    assert sent_by(compiled(mesh, jnp.sin, (8, 32), P("data", "tensor"))) == []


def test_what_the_partitioner_puts_in(mesh):
    """A product over a dimension that lies apart is added up: (8, 16) @ (16, 4), 16 cut in 4, rows cut in 2."""
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("data", "tensor")))
    w = jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=NamedSharding(mesh, P("tensor")))
    place = NamedSharding(mesh, P("data"))
    module = Module(jax.jit(jnp.matmul, out_shardings=place).lower(x, w).compile().as_text())
    assert sent_by(module) == [("all-reduce", "tensor", 2 * 3 / 4 * (8 / 2) * 4 * FLOAT, 1)]


# ----------------------------------------------------------------------------------------------------------------------
# What only TPU modules have
# ----------------------------------------------------------------------------------------------------------------------

LOOP = """\
%condition (p: (u32[], f32[8])) -> pred[] {
  %p = (u32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %limit = u32[]{:T(128)} constant(8)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

%body (p: (u32[], f32[8])) -> (u32[], f32[8]) {
  %p = (u32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8]{0:T(128)} get-tuple-element(%p), index=1
  %two = u32[]{:T(128)} constant(2)
  %next = u32[]{:T(128)} add(%i, %two)
  %y = (f32[8]{0}, f32[8]{0:T(128)S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), SOURCES
  %z = f32[8]{0:T(128)} collective-permute-done(%y)
  ROOT %out = (u32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%next, %z)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(128)} parameter(0)
  %zero = u32[]{:T(128)} constant(0)
  %in = (u32[]{:T(128)}, f32[8]{0:T(128)}) tuple(%zero, %x)
  %loop = (u32[]{:T(128)}, f32[8]{0:T(128)}) while(%in), condition=%condition, body=%body
  ROOT %r = f32[8]{0:T(128)} get-tuple-element(%loop), index=1
}
""".replace("SOURCES", "source_target_pairs={{0,3},{1,0},{2,1},{3,2},{4,7},{5,4},{6,5},{7,6}}")


def test_a_loop_is_counted_from_its_counter_where_nobody_noted_it():
    """From 0 below 8 by twos, and the two halves of a start are the same array, sent once."""
    assert sent_by(Module(LOOP)) == [("collective-permute", "tensor", 4 * 8 * FLOAT, 4)]


FUSED = """\
%start (x: bf16[2,8]) -> bf16[8,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  ROOT %g = bf16[8,8]{1,0} all-gather(%x), GROUPS, backend_config={"async_collective_fusion_config":{"flag_start":"-1"}}
}

%beside (x: bf16[2,8]) -> bf16[8,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  ROOT %g = bf16[8,8]{1,0} all-gather(%x), GROUPS, backend_config={"async_collective_fusion_config":{"flag_start":"2"}}
}

%all-reduce-scatter.1 (x: f32[8,8]) -> f32[2,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %all = f32[8,8]{1,0} all-reduce(%x), GROUPS
  ROOT %own = f32[2,8]{1,0} dynamic-slice(%all), dynamic_slice_sizes={2,8}
}

ENTRY %main (x: bf16[2,8], y: f32[8,8]) -> bf16[8,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  %y = f32[8,8]{1,0} parameter(1)
  %a = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%start
  %b = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%beside
  %c = f32[2,8]{1,0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %d = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%beside
}
""".replace("GROUPS", "replica_groups=[2,4]<=[8]")


def test_a_gather_beside_computation_counts_once_and_a_kept_part_of_a_sum_is_a_scatter():
    assert sent_by(Module(FUSED)) == [
        ("all-gather", "tensor", 3 / 4 * 64 * 2, 1),
        ("reduce-scatter", "tensor", 3 / 4 * 64 * FLOAT, 1),
    ]


@pytest.mark.parametrize(
    ("written", "groups", "axes"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", [[0, 1, 2, 3], [4, 5, 6, 7]], "tensor"),
        ("[4,2]<=[2,4]T(1,0)", [[0, 4], [1, 5], [2, 6], [3, 7]], "data"),
        ("[1,8]<=[8]", [[0, 1, 2, 3, 4, 5, 6, 7]], "data+tensor"),
        ("mesh['data'=2,'tensor'=4] {'data'}", [[0, 4], [1, 5], [2, 6], [3, 7]], "data"),
        ("mesh['axis_0'=8] {'axis_0':(1)2}", [[0, 4], [1, 5], [2, 6], [3, 7]], "data"),
        ("mesh['axis_0'=8] {'axis_0':(2)4}", [[0, 1, 2, 3], [4, 5, 6, 7]], "tensor"),
        ("mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}", [[0, 1], [2, 3], [4, 5], [6, 7]], "tensor"),
        ("mesh['a'=2,'b'=4] {'b','a'}", [[0, 4, 1, 5, 2, 6, 3, 7]], "data+tensor"),
        ("{}", [[0, 1, 2, 3, 4, 5, 6, 7]], "data+tensor"),
    ],
)
def test_every_way_in_which_groups_are_written(written, groups, axes):
    read = _groups(f"  %x = f32[8] all-reduce(%y), replica_groups={written}, to_apply=%add", 8)
    assert read.tolist() == groups
    assert _axes(read, AXES) == axes


def test_what_the_hosts_send_between_slices_goes_along_the_outermost_axis():
    """4 x 8 numbers of bfloat16, added up over 2 slices."""
    text = """\
ENTRY %main (x: bf16[4,8]) -> bf16[4,8] {
  %x = bf16[4,8]{1,0} parameter(0)
  %t = token[] after-all()
  %s = (bf16[4,8]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}, token[]) send(%x, %t), channel_id=2, is_host_transfer=true, WHERE
  %r = (bf16[4,8]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}, token[]) recv(%t), channel_id=1, is_host_transfer=true, WHERE
  %sd = token[] send-done(%s), channel_id=2, is_host_transfer=true
  ROOT %rd = (bf16[4,8]{1,0}, token[]) recv-done(%r), channel_id=1, is_host_transfer=true
}
"""
    where = '_xla_megascale_target="{SLICES}x{0:3}",_xla_megascale_transfer_type="ALL_REDUCE"'
    where = f"frontend_attributes={{{where}}}"
    two, four = (Module(text.replace("WHERE", where.replace("SLICES", slices))) for slices in ("1,2", "1:4"))
    assert sent_by(two) == [("all-reduce", "data", 2 * 1 / 2 * 32 * 2, 1)]
    assert sent_by(four) == [("all-reduce", "data", 2 * 3 / 4 * 32 * 2, 1)]


def test_async_pairs_count_once(mesh):
    """What starts and what ends are one collective, whether the compiler writes async-start or all-gather-start."""
    wrapped = """\
%wrapped (x: f32[2]) -> f32[8] {
  %x = f32[2]{0} parameter(0)
  ROOT %g = f32[8]{0} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
}

ENTRY %main (x: f32[2]) -> f32[8] {
  %x = f32[2]{0} parameter(0)
  %s = ((f32[2]{0}), f32[8]{0}, u32[]) async-start(%x), calls=%wrapped
  %d = f32[8]{0} async-done(%s), calls=%wrapped
  %t = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), replica_groups=[2,4]<=[8], dimensions={0}
  ROOT %e = f32[8]{0} all-gather-done(%t)
}
"""
    assert sent_by(Module(wrapped)) == [("all-gather", "tensor", 3 / 4 * 8 * FLOAT, 1)] * 2
