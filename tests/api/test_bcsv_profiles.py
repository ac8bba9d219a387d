"""The synthetic profiles: column counts of the requirement, reproducible, without nulls."""

import pyarrow as pa
import pytest

from tapeline.bcsv._profiles import PROFILES, generate

COLUMNS = {
    "mixed_generic": 72,
    "sparse_events": 100,
    "sensor_noisy": 50,
    "string_heavy": 30,
    "bool_heavy": 132,
    "arithmetic_wide": 200,
    "simulation_smooth": 100,
    "weather_timeseries": 36,
    "high_cardinality_string": 50,
    "float_1000ch": 1001,
    "radar_iq": 66,
}


def test_the_eleven_profiles_are_there():
    assert {name: generate(name, 1).num_columns for name in PROFILES} == COLUMNS


@pytest.mark.parametrize("profile", COLUMNS)
def test_same_seed_same_table(profile):
    table = generate(profile, 500, seed=3)
    assert table.equals(generate(profile, 500, seed=3))
    assert not table.equals(generate(profile, 500, seed=4))
    assert table.num_rows == 500
    assert all(column.null_count == 0 and column.num_chunks == 1 for column in table.columns)


@pytest.mark.parametrize("profile", COLUMNS)
def test_no_rows(profile):
    assert generate(profile, 0).num_rows == 0


def test_sparse_events_seldom_change():
    column = generate("sparse_events", 20_000)["total_3"].to_numpy()
    assert 0.005 < (column[1:] != column[:-1]).mean() < 0.02


def test_unknown_profile():
    with pytest.raises(KeyError):
        generate("no_such", 1)


def test_types_are_the_twelve():
    assert {str(t) for t in generate("mixed_generic", 1).schema.types} == {
        "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float", "double", "string",
    }  # fmt: skip
    assert isinstance(generate("radar_iq", 1), pa.Table)
