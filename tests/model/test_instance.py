"""Instances: shapes and batches, the `.npz` of MODEL section 8 there and back, every way to get it wrong."""

import os
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rodiu_jax.errors import InputError
from rodiu_jax.model.fields import (
    FIELD_SPECS,
    REQUIRED_FIELDS,
    UNCERTAINTY_MODES,
    Fields,
    compute_demand,
    kv_demand,
    stored_data,
    tokens_per_query,
)
from rodiu_jax.model.instance import make_instances
from rodiu_jax.model.npz import load_instances
from tests.oracles.instances import default_instances, random_instances, scenarios

# Field, axes and symbol as MODEL section 1 lists them.
MODEL_FIELDS = {
    "I": "arrival_rate input_tokens output_tokens compute_per_token token_size delay_penalty unmet_penalty"
    " delay_threshold error_threshold",
    "J": "weight_memory kv_per_token",
    "K": "gpu_memory gpu_compute gpu_price",
    "IJK": "delay_nominal delay_deviation error_nominal error_deviation",
    "JK": "delay_impact error_impact",
    "N": "tp_degree tp_speedup",
    "": "storage_price gamma_delay gamma_error budget rental_hours storage_capacity residency_hours unmet_cap"
    " max_routes",
}


def contents(instances):
    """The arrays of the file, as another program would write them."""
    arrays = {n: np.asarray(getattr(instances.fields, n)) for n in REQUIRED_FIELDS}
    arrays |= {n: np.array(getattr(instances, n)) for n in ("query_names", "model_names", "gpu_names")}
    return arrays | {"uncertainty": np.array(instances.uncertainty)}


def assert_same(first, second):
    assert (first.query_names, first.model_names, first.gpu_names) == (
        second.query_names,
        second.model_names,
        second.gpu_names,
    )
    assert (first.uncertainty, first.batched, first.size) == (second.uncertainty, second.batched, second.size)
    for name, one, other in zip(Fields._fields, first.fields, second.fields, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert one.dtype == other.dtype


def test_fields_are_those_of_the_model():
    assert {n: FIELD_SPECS[n].axes for n in REQUIRED_FIELDS} == {
        name: axes for axes, names in MODEL_FIELDS.items() for name in names.split()
    }
    assert tuple(FIELD_SPECS) == Fields._fields


def test_derived_quantities_by_hand():
    f = random_instances(
        0, (1, 1, 1, 1), arrival_rate=[30.0], input_tokens=[100.0], output_tokens=[20.0], kv_per_token=[0.5],
        residency_hours=0.1, compute_per_token=[0.25], token_size=[2.0],
    ).one(0)  # fmt: skip
    assert tokens_per_query(f) == [120.0]
    np.testing.assert_allclose(kv_demand(f), [[[0.5 * 120 * 30 * 0.1]]])
    np.testing.assert_allclose(compute_demand(f), [30.0])
    np.testing.assert_allclose(stored_data(f), [2.0 * 120 * 30 / 1000])


@pytest.mark.parametrize("mode", UNCERTAINTY_MODES)
def test_round_trip(tmp_path, mode):
    for instances in (
        default_instances(3, mode=mode),
        random_instances(1, (1, 3, 2, 1), batch=2, mode=mode),
        random_instances(1, (2, 1, 2, 3)).with_fields(**random_instances(1, (2, 1, 2, 3)).one(0)._asdict()),
    ):
        path = tmp_path / "some name.npz"
        instances.save(path)
        assert_same(load_instances(path), instances)
        assert os.listdir(tmp_path) == ["some name.npz"]


@given(scenarios((2, 1, 2, 2)))
def test_round_trip_of_any_scenario(tmp_path_factory, instances):
    path = tmp_path_factory.mktemp("any") / "a.npz"
    instances.save(path)
    assert_same(load_instances(path), instances)


def test_files_of_other_programs(tmp_path):
    # float32, whole numbers as floats, compressed, shared and batched fields side by side
    arrays = contents(random_instances(2, (2, 2, 2, 2), batch=3))
    arrays["budget"] = np.float32(100.0)
    arrays["gpu_price"] = arrays["gpu_price"].astype(np.float32)
    arrays["tp_degree"] = np.array([1.0, 2.0])
    arrays["max_routes"] = np.array([0, 1, 2], dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    instances = load_instances(tmp_path / "a.npz")
    assert instances.size == 3
    assert "budget" not in instances.batched
    assert instances.fields.gpu_price.dtype == np.float64
    assert instances.fields.tp_degree.dtype == instances.fields.max_routes.dtype == np.int64
    assert instances.one(2).max_routes == 2


def test_one_and_take_and_names():
    instances = random_instances(2, (2, 2, 3, 2), batch=4)
    assert instances.shape == (2, 2, 3, 2)
    for name in REQUIRED_FIELDS:
        assert np.ndim(getattr(instances.one(1), name)) == len(FIELD_SPECS[name].axes)
    taken = instances.take([3, 1, 3])
    assert taken.size == 3
    assert_same(taken.take([1]), instances.take([1]))
    assert instances.axis_names("N") == ("1", "2")
    assert instances.axis_names("K") == ("g0", "g1", "g2")
    for b in (-1, 4):
        with pytest.raises(
            InputError, match=rf"instance: instance: got {b}, expected a whole number from 0 to 3"
        ):
            instances.one(b)


def test_take_of_shared_fields_keeps_the_count():
    single = random_instances(2, (1, 1, 1, 1))
    shared = single.with_fields(**single.one(0)._asdict())
    assert (shared.size, shared.take([0, 0, 0]).size) == (1, 3)


def test_other_modes_keep_the_fields():
    instances = random_instances(2, (1, 1, 1, 1))
    assert instances.with_uncertainty("diu").fields is instances.fields
    with pytest.raises(InputError, match=r"uncertainty: got 'robust', expected none or diu or ddu"):
        instances.with_uncertainty("robust")


def _without(name):
    return lambda arrays: arrays.pop(name)


def _with(name, value):
    return lambda arrays: arrays.__setitem__(name, np.asarray(value))


def _cell(name, index, value):
    def change(arrays):
        arrays[name] = arrays[name].astype(np.float64)
        arrays[name][index] = value

    return change


BAD_FIELDS = {
    "missing field": (_without("gpu_price"), r"gpu_price: expected this field, which is missing"),
    "missing names": (_without("model_names"), r"model_names: expected this field, which is missing"),
    "missing mode": (_without("uncertainty"), r"uncertainty: expected this field, which is missing"),
    "unknown field": (_with("gpu_cost", 1.0), r"gpu_cost: expected only the fields arrival_rate"),
    "too short": (_with("gpu_price", [[1.0]] * 3), r"gpu_price: got \(3, 1\), expected shape \(2,\) \(K\)"),
    "axes swapped": (
        _with("delay_impact", np.ones((3, 2, 3))),
        r"delay_impact: got .*, expected shape \(3, 2\)",
    ),
    "no axes": (_with("arrival_rate", 5.0), r"arrival_rate: got \(\), expected shape \(2,\) \(I\)"),
    "too many axes": (
        _with("budget", np.ones((3, 1))),
        r"budget: got \(3, 1\), expected shape \(\) \(scalar\)",
    ),
    "NaN": (
        _cell("error_nominal", (2, 1, 0, 1), np.nan),
        r"error_nominal\[2,1,0,1\]: got nan, expected finite",
    ),
    "infinity": (
        _cell("budget", 1, np.inf),
        r"budget\[1\]: got inf, expected finite numbers >= 0 \(\$/period\)",
    ),
    "minus infinity": (_cell("budget", 1, -np.inf), r"budget\[1\]: got -inf"),
    "negative rate": (
        _cell("arrival_rate", (0, 1), -3.0),
        r"arrival_rate\[0,1\]: got -3.0, expected .*\(queries/h\)",
    ),
    "negative Gamma": (
        _cell("gamma_delay", 2, -0.5),
        r"gamma_delay\[2\]: got -0.5, expected finite numbers >= 0",
    ),
    "negative Gamma of errors": (_with("gamma_error", -1), r"gamma_error: got -1.0"),
    "impact above 1": (
        _cell("delay_impact", (0, 0, 0), 1.01),
        r"delay_impact\[0,0,0\]: got 1.01, expected .*<= 1",
    ),
    "cap above 1": (_with("unmet_cap", 2), r"unmet_cap: got 2.0, expected .*<= 1"),
    "no time": (_with("rental_hours", 0), r"rental_hours: got 0.0, expected finite numbers > 0"),
    "half a route": (_with("max_routes", 0.5), r"max_routes: got 0.5, expected whole numbers"),
    "half a GPU": (_with("tp_degree", [1.5, 2]), r"tp_degree\[0\]: got 1.5, expected whole numbers"),
    "degree 0": (_with("tp_degree", [0, 1]), r"tp_degree\[0\]: got 0.0, expected whole numbers >= 1"),
    "degree twice": (_with("tp_degree", [2, 2]), r"tp_degree: got \[2, 2\], expected increasing"),
    "degrees of another length": (
        _with("tp_degree", [1, 2, 4]),
        r"tp_speedup: got \(2,\), expected shape \(3,\)",
    ),
    "no degrees": (_with("tp_degree", []), r"tp_degree: got \(0,\), expected"),
    "speed 0": (_with("tp_speedup", [1, 0]), r"tp_speedup\[1\]: got 0.0, expected finite numbers > 0"),
    "batches differ": (_with("budget", [1.0] * 4), r": budget: got 4, expected 3 scenarios as in "),
    "first batch differs": (
        lambda a: a.update(arrival_rate=a["arrival_rate"][:1], unmet_cap=np.zeros(1)),
        r": arrival_rate, unmet_cap: got 1, expected 3 scenarios as in ",
    ),
    "misspelt field": (
        _with("bugdet", 1.0),
        r"bugdet: expected only the fields .* \(did you mean budget\?\)",
    ),
    "empty batch": (_with("budget", np.zeros(0)), r"budget: got 0, expected at least one scenario"),
    "text": (_with("budget", ["5000"]), r"budget: got '<U4', expected an array of real numbers"),
    "complex": (_with("budget", 1j), r"budget: got 'complex128', expected an array of real numbers"),
    "truth values": (_with("budget", True), r"budget: got 'bool', expected an array of real numbers"),
    "mode": (_with("uncertainty", "DDU"), r"uncertainty: got 'DDU', expected none or diu or ddu"),
    "mode of each": (_with("uncertainty", ["ddu"] * 3), r"uncertainty: got .*, expected one text"),
    "names are numbers": (
        _with("gpu_names", [1, 2]),
        r"gpu_names: got 'int64 array of shape \(2,\)', expected a list",
    ),
    "name twice": (_with("gpu_names", ["a", "a"]), r"gpu_names: got 'a', expected distinct names"),
    "blank name": (_with("gpu_names", ["a", " "]), r"gpu_names: got ' ', expected printable names"),
    "name of two lines": (
        _with("gpu_names", ["a", "b\nc"]),
        r"gpu_names: got 'b\\nc', expected printable names",
    ),
    "no names": (_with("gpu_names", np.zeros(0, "U1")), r"gpu_names: expected at least one name"),
    "more names than data": (
        _with("gpu_names", ["a", "b", "c"]),
        r"gpu_memory: got \(3, 2\), expected shape \(3,\)",
    ),
    "byte names": (_with("gpu_names", [b"a", b"b"]), r"gpu_names: got '\|S1 array"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_bad_fields(tmp_path, spoil, message):
    arrays = contents(random_instances(0, (2, 3, 2, 2), batch=3))
    spoil(arrays)
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_instances(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def _single_array(path):
    with path.open("wb") as stream:
        np.save(stream, np.ones(3))


def _object_array(path):
    arrays = contents(random_instances(0, (1, 1, 1, 1)))
    arrays["budget"] = np.array([{}], dtype=object)
    np.savez(path, **arrays)


def _cut(share):
    def write(path):
        random_instances(0, (2, 2, 2, 2), batch=3).save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return write


def _flipped(path):
    arrays = contents(random_instances(0, (2, 2, 2, 2), batch=30))
    np.savez_compressed(path, **arrays)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 40] = bytes(40)
    path.write_bytes(damaged)


def _foreign_member(path):
    random_instances(0, (1, 1, 1, 1)).save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("readme.txt", "hello")


BAD_FILES = {
    "missing": (lambda path: None, "readable"),
    "folder": (lambda path: path.mkdir(), "readable"),
    "empty": (lambda path: path.write_bytes(b""), "whole .npz"),
    "text": (lambda path: path.write_text("arrival_rate = 3"), "whole .npz"),
    "truncated late": (_cut(0.97), "whole .npz"),
    "truncated early": (_cut(0.3), "whole .npz"),
    "damaged inside": (_flipped, "whole .npz"),
    "single array": (_single_array, "an .npz archive"),
    "pickled objects": (_object_array, "without pickled objects"),
    "a member that is no array": (_foreign_member, r"readme.txt"),
}


@pytest.mark.parametrize(("write", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(tmp_path, write, message):
    path = tmp_path / "bad.npz"
    write(path)
    with pytest.raises(InputError, match=message) as caught:
        load_instances(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_failed_save_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        random_instances(0, (1, 1, 1, 1)).save(tmp_path / "a.npz")
    assert os.listdir(tmp_path) == []


@given(st.sampled_from(sorted(REQUIRED_FIELDS)), st.sampled_from([np.nan, np.inf, -np.inf, -1e-9, -7.0]))
def test_no_field_accepts_what_is_not_a_finite_number_in_range(name, value):
    instances = random_instances(0, (2, 2, 2, 2), batch=2)
    values = {n: np.array(v, dtype=np.float64) for n, v in instances.fields._asdict().items()}
    values[name].flat[-1] = value
    with pytest.raises(InputError, match=name):
        make_instances(instances.query_names, instances.model_names, instances.gpu_names, "ddu", values)
