"""Ahead-of-time counts: of programs whose kernels, turns, bytes and operations are known by hand."""

from importlib.metadata import PackageNotFoundError, version

import click
import pytest
from click.testing import CliRunner

from bench import ahead, ahead_brackets
from bench.ahead_brackets import COPIES, START, Call, Pricer, Recorded, record_brackets, record_for, tabulate
from bench.compiled_text import Kernel, Reader, Run

PROGRAM = """HloModule jit_f, is_scheduled=true

%add_one (param_0: f32[1024]) -> f32[1024] {
  %param_0 = f32[1024]{0} parameter(0)
  %one = f32[] constant(1)
  %ones = f32[1024]{0} broadcast(%one), dimensions={}
  ROOT %sum = f32[1024]{0} add(%param_0, %ones), metadata={op_name="jit(f)/add"}
}

%divide (param_0.1: f64[256,8], param_1: s32[]) -> f64[8] {
  %param_1 = s32[] parameter(1)
  %param_0.1 = f64[256,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %row = f64[1,8]{1,0} dynamic-slice(%param_0.1, %param_1, %zero), dynamic_slice_sizes={1,8}
  %flat = f64[8]{0} bitcast(%row)
  ROOT %quotient = f64[8]{0} divide(%flat, %flat)
}

%step (state: (s32[], f32[1024])) -> (s32[], f32[1024]) {
  %state = (s32[], f32[1024]{0}) parameter(0)
  %number = s32[] get-tuple-element(%state), index=0
  %x = f32[1024]{0} get-tuple-element(%state), index=1
  %a = f32[1024]{0} fusion(%x), kind=kLoop, calls=%add_one
  %b = f32[1024]{0} fusion(%a), kind=kLoop, calls=%add_one
  %c = f32[1024]{0} fusion(%b), kind=kLoop, calls=%add_one
  %d = f32[1024]{0} fusion(%c), kind=kLoop, calls=%add_one
  %e = f32[1024]{0} copy(%d)
  ROOT %next = (s32[], /*index=1*/f32[1024]{0}) tuple(%number, %e)
}

%more (state.1: (s32[], f32[1024])) -> pred[] {
  %state.1 = (s32[], f32[1024]{0}) parameter(0)
  %number.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%number.1, %number.1), direction=LT
}

ENTRY %main (x: f32[1024], table: f64[256,8], at: s32[]) -> f32[1024] {
  %x.1 = f32[1024]{0} parameter(0)
  %table = f64[256,8]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %first = f64[8]{0} fusion(%table, %at), kind=kLoop, calls=%divide
  %begin = (s32[], f32[1024]{0}) tuple(%at, %x.1)
  %known = (s32[], f32[1024]{0}) while(%begin), condition=%more, body=%step, backend_config={"known_trip_count":{"n":"3"},"x":[]}
  %data = (s32[], f32[1024]{0}) while(%known), condition=%more, body=%step
  ROOT %out = f32[1024]{0} get-tuple-element(%data), index=1
}
"""  # noqa: E501
"""One kernel; a loop of 3 turns of 5 kernels; one of as many turns as the caller says, whose condition is read."""


def test_kernels_and_reads_follow_the_turns_of_loops():
    run = Reader(PROGRAM, 10).count()
    assert run.in_program == 1 + 5 + 5 + 1
    assert run.started == 1 + 3 * 5 + 10 * 5 + 11
    assert run.loop_reads == 11, "one for each turn, and the last that says no"
    assert run.graphs == 3 + 10, "five kernels make a graph"
    assert run.alone == 1 + 11
    assert run.largest_body == 5 + 1


def test_with_loops_in_graphs_the_program_is_one():
    run = Reader(PROGRAM, 10, loops_in_graphs=True).count()
    assert (run.graphs, run.alone, run.loop_reads) == (1, 0, 0)
    assert run.started == Reader(PROGRAM, 10).count().started


def test_bytes_and_operations_are_those_by_hand():
    run = Reader(PROGRAM, 0).count()
    first = run.kernels[0][0]
    # A row of 8 float64 is read, not the table, with its place; 8 are written.
    assert first.traffic == 8 * 8 + 4 + 8 * 8
    assert first.operations == {"f64": 8 * 8}, "a division counts as eight additions"
    added = next(kernel for kernel, times in run.kernels if times == 3)
    assert added.traffic == 2 * 4096
    assert added.operations == {"f32": 1024}
    # the loop of 3, and the other's condition, asked once
    assert run.traffic == first.traffic + 3 * 5 * 8192 + (4 + 4 + 1)


def test_an_update_in_place_moves_the_update():
    text = """ENTRY %main (a: f32[100,4], b: f32[1,4], i: s32[]) -> f32[100,4] {
  %a = f32[100,4]{1,0} parameter(0)
  %b = f32[1,4]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %f = f32[100,4]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%put
}

%put (p: f32[100,4], q: f32[1,4], r: s32[]) -> f32[100,4] {
  %p = f32[100,4]{1,0} parameter(0)
  %q = f32[1,4]{1,0} parameter(1)
  %r = s32[] parameter(2)
  ROOT %u = f32[100,4]{1,0} dynamic-update-slice(%p, %q, %r, %r)
}
"""
    ((kernel, _),) = Reader(text, 0).count().kernels
    assert kernel.traffic == 16 + 4 + 16


def test_a_program_of_this_machine_is_read():
    """XLA's own text, whatever version is installed: a loop of data's turns, and one that XLA counts."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def double(x: jax.Array, turns: jax.Array) -> jax.Array:
        x = jax.lax.fori_loop(0, turns, lambda _, x: jnp.sin(x[::-1]).cumsum(), x)
        return jax.lax.fori_loop(0, 7, lambda _, x: jnp.cos(x[::-1]).cumsum(), x)

    text = double.lower(jnp.ones(50), jnp.int32(1)).compile().as_text()
    few, many = (Reader(text, turns).count() for turns in (1, 101))
    assert many.loop_reads - few.loop_reads == 100
    assert many.started - few.started == pytest.approx(100 * (few.started - Reader(text, 0).count().started))
    assert few.traffic > 8 * 50 * 4


def test_a_kernel_takes_the_longest_of_its_limits():
    small = Kernel(8.0, {}, resident=True)
    assert ahead.price_kernel(small) == ahead.IN_GRAPH
    assert ahead.price_kernel(Kernel(8.0, {})) == ahead.ALONE
    assert ahead.price_kernel(Kernel(1e9, {})) == 1e9 / ahead.BANDWIDTH
    assert ahead.price_kernel(Kernel(4e7, {})) == 4e7 / ahead.CACHE_BANDWIDTH
    busy = Kernel(8.0, {"f32": ahead.OPERATIONS["f32"], "f64": ahead.OPERATIONS["f64"]})
    assert ahead.price_kernel(busy) == pytest.approx(2.0)
    run = Run([(small, 5.0)], graphs=1.0, loop_reads=2.0)
    assert ahead.price_run(run) == pytest.approx(5 * ahead.IN_GRAPH + ahead.GRAPH + 2 * ahead.LOOP_READ)


def test_without_the_compiler_the_command_says_so(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(ahead, "version", missing)
    result = CliRunner().invoke(ahead.main, [])
    assert result.exit_code == 2
    assert "jax-cuda13-plugin is not installed" in result.output


def test_an_unknown_program_is_refused():
    class Named:
        name = "route, 4 slots"

    assert ahead.choose_programs([Named], ["route"]) == [Named]
    with pytest.raises(click.UsageError, match="got rout4, expected the beginning of one of route, 4 slots"):
        ahead.choose_programs([Named], ["rout4"])


@pytest.mark.slow
def test_every_program_is_traced_at_the_blocks_of_the_product():
    """On the CPU, with its blocks: a program whose arguments changed fails here, where no GPU's compiler is."""
    import jax

    from bench.ahead_programs import list_programs

    cpu = jax.devices("cpu")[0]
    with jax.enable_x64(True):
        programs = list_programs()
    assert len({program.name for program in programs}) == len(programs) >= 9
    for program in programs:
        sizes = ahead.list_sizes(program, cpu)
        results = jax.tree.leaves(ahead.trace_program(program, sizes[0], cpu).out_info)
        assert {result.shape[0] for result in results} == {sizes[0]}, program.name


def test_sizes_are_those_of_an_accelerator(monkeypatch: pytest.MonkeyPatch):
    import jax

    from bench.ahead_programs import list_programs
    from rodiu_jax.runtime import block_sizes

    monkeypatch.setattr(block_sizes, "by_device", lambda *, cpu, accelerator: accelerator)
    with jax.enable_x64(True):
        sizes = {p.name.split(",")[0]: ahead.list_sizes(p, jax.devices("cpu")[0]) for p in list_programs()}
    # Blocks of 16,384 scenarios have an eighth or a 64th of that for few; of draws and evaluations there is one size.
    assert sizes["bound"] == [256, 16_384]
    assert sizes["node"] == sizes["route"] == sizes["neighbours"] == sizes["recourse 16"] == [64, 4096]
    assert sizes["draw"] == [4096]


@pytest.mark.slow
def test_a_program_compiles_for_the_described_device(tmp_path):
    try:
        version(ahead.PACKAGE)
    except PackageNotFoundError:
        pytest.skip(f"{ahead.PACKAGE} is not installed: pip install -e '.[cuda]'")
    import subprocess
    import sys

    command = [
        sys.executable,
        "-m",
        "bench.ahead",
        "evaluate",
        "--rows",
        "64",
        "--out",
        str(tmp_path / "a.json"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "evaluate 1" in done.stdout


def test_calls_of_brackets_are_priced_at_the_blocks_of_an_accelerator():
    """Every program is `PROGRAM`: a kernel alone, a loop of 3, one of the call's turns; each launch-bound."""
    compiled = ahead.Compiled(PROGRAM, 0)
    names = ("bound_nodes", 0), ("_route_plans", 4), ("_route_plans", 6), ("_neighbours", 6)
    pricer = Pricer({(name, slots, rows): compiled for name, slots in names for rows in (64, 512, 4096)})

    def seconds(turns: int) -> float:
        in_graphs, alone = 5 * (3 + turns), 1 + turns + 1
        starts = ahead.GRAPH * (3 + turns) + ahead.LOOP_READ * (turns + 1)
        return ahead.IN_GRAPH * in_graphs + ahead.ALONE * alone + starts

    assert pricer.price(Call("_route_plans", 70, 5, 25, 0)) == (pytest.approx(seconds(25)), 1)
    assert pricer.price(Call("bound_nodes", 9000, 0, 60, 0)) == (pytest.approx(3 * seconds(60)), 3)
    calls = [Call("bound_nodes", 128, 0, 60, 10**6), Call("_neighbours", 2, 6, 25, 0, scarce=True)]
    row = tabulate("now", Recorded(128, calls, uploaded=10**7, host=0.02), pricer, 16_384)
    assert row[:5] == ["now", 16_384, 2, 0, 1], "2 rows of 128 scenarios are 256 of 16,384"
    device, blocks = 4 * seconds(60) + seconds(25), 5
    host = 128 * 0.02 + START * blocks + 128 * (10**6 + 10**7) / COPIES
    assert row[-2:] == pytest.approx([16_384 / (device + host), 16_384 / max(device, host)])


@pytest.mark.slow
def test_calls_of_brackets_are_recorded():
    many, few = (record_brackets(8, 3, few=most) for most in (0, 1024))
    assert {call.turns for call in few.calls if call.program == "_route_plans"} == {25}
    assert {call.turns for call in many.calls if call.program == "_route_plans"} == {9, 25}
    assert len(few.calls) < len(many.calls)
    for recorded in (many, few):
        roots = recorded.calls[1]
        assert (roots.program, roots.rows, roots.turns) == ("bound_nodes", 8, 150)
        assert roots.moved > 8 * 60 * 4
        assert [call.turns for call in recorded.calls].count(150) == 1, "of the second time alone"
        assert recorded.host > 0
        assert recorded.uploaded > 8 * 8 * 60
    assert not any(call.scarce for call in few.calls[:2]), "at the root no capacity is scarce yet"


def test_few_deployments_are_as_many_as_an_accelerator_would_have(monkeypatch: pytest.MonkeyPatch):
    """Of 1,024 deployments of 16,384 scenarios, 512 scenarios have 32."""
    monkeypatch.setattr(
        ahead_brackets, "record_brackets", lambda scenarios, seed, *, few: (scenarios, seed, few)
    )
    assert record_for(16_384, 512, 29) == (512, 29, 32)
    assert record_for(4096, 512, 29) == (512, 29, 128)
    assert record_for(512, 512, 29) == (512, 29, 1024)
