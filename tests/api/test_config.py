"""The configuration: layers, bounds, errors that name the key and the place."""

import dataclasses
import json
import re

import pytest

from tapeline.config import LayoutConfig, RecorderConfig, StreamConfig, check_stream_name
from tapeline.errors import ConfigError
from tapeline.quantities import parse_duration, parse_rotation, parse_size

URL = "udp://127.0.0.1:0"
RING_BYTES = 4 * 33 * 65536  # four blocks, each 1 MiB and a frame of 40 + 1,048,576 bytes in units of 64 KiB


def one(**settings):
    """A configuration with one stream of the given settings."""
    return RecorderConfig.from_dict({"out": "run", "streams": {"ch0": {"url": URL, **settings}}})


def load(tmp_path, toml, **kwargs):
    path = tmp_path / "c.toml"
    path.write_text(toml)
    return RecorderConfig.load(path, **{"environ": {}, **kwargs})


# --- the form the compiled recorder takes -------------------------------------------------------------------


def test_defaults_reach_the_recorder_as_agreed():
    config = RecorderConfig.from_dict({"out": "run", "streams": {"ch0": "udp://127.0.0.1:9001"}})
    assert json.loads(config.to_json()) == {
        "out": "run",
        "min_free_bytes": None,
        "on_low_disk": "stop",
        "keep_bytes": None,
        "keep_seconds": None,
        "keep_segments": None,
        "count": None,
        "streams": [
            {
                "name": "ch0",
                "sources": [
                    {
                        "kind": "udp",
                        "url": "udp://127.0.0.1:9001",
                        "address": "127.0.0.1:9001",
                        "path": None,
                        "group": None,
                        "interface": None,
                    }
                ],
                "wire": "frame",
                "layout": {
                    "magic": "d1c64f93a7b25e8c",
                    "version_flags": 4,
                    "length_bytes": 4,
                    "header_crc": True,
                    "max_payload": 1048576,
                },
                "assembly": "none",
                "max_open": 4,
                "max_periodic_bytes": 67108864,
                "reorder_window": 65536,
                "hold_seconds": 1.0,
                "keep_duplicates": False,
                "split_by_stream_id": False,
                "ring_bytes": 67108864,
                "receive_buffer_bytes": 33554432,
                "gro": True,
                "rotate_bytes": 268435456,
                "rotate_seconds": None,
                "keep_bytes": None,
                "keep_seconds": None,
                "keep_segments": None,
                "min_free_bytes": None,
                "on_low_disk": None,
                "sync": "interval:1",
                "idle_timeout_seconds": None,
                "connect_backoff_seconds": [0.1, 5.0],
                "max_clients": 1024,
                "max_buffer_bytes": 4194304,
                "image_seconds": 10.0,
            }
        ],
    }


def test_streams_may_be_a_url_a_list_a_table_or_a_list_of_tables():
    two = ["udp://127.0.0.1:1", "tcp://127.0.0.1:1"]
    config = RecorderConfig.from_dict({"out": "r", "streams": {"a": URL, "b": two, "c": {"sources": [URL]}}})
    assert [[s.kind for s in stream.sources] for stream in config.streams] == [["udp"], ["udp", "tcp"], ["udp"]]
    listed = RecorderConfig.from_dict({"out": "r", "streams": [{"name": "a", "url": URL, "gro": False}]})
    assert listed.streams[0].gro is False


def test_direct_construction_is_checked_too():
    stream = StreamConfig(name="a", sources=(URL,), ring_bytes="128MiB")
    assert stream.ring_bytes == 128 << 20
    with pytest.raises(ConfigError, match=r"streams\.a\.max_open"):
        StreamConfig(name="a", sources=(URL,), max_open=0)
    with pytest.raises(ConfigError, match="1 to 256"):
        RecorderConfig(out="r", streams=())
    with pytest.raises(dataclasses.FrozenInstanceError):
        stream.gro = False


@pytest.mark.parametrize(
    ("layout", "header_bytes"),
    [
        ({}, 40),
        ({"version_flags": 2}, 38),
        ({"header_crc": False}, 36),
        ({"version_flags": 2, "header_crc": False}, 34),
        ({"length_bytes": 8}, 44),
    ],
)
def test_header_lengths(layout, header_bytes):
    assert LayoutConfig(**layout).header_bytes == header_bytes


# --- layers -------------------------------------------------------------------------------------------------

TOML = """
out = "from-file"
keep_bytes = "2GiB"

[defaults]
assembly = "markers"
rotate_bytes = "1MiB"

[streams.ch0]
url = "udp://127.0.0.1:9001?ring_bytes=128MiB&magic=0011223344556677"
sync = "batch"
layout = { max_payload = "64KiB" }

[streams.Radar-2]
sources = ["udp://127.0.0.1:9002", "tcp://127.0.0.1:9002"]
assembly = "count:8"
"""


def test_a_toml_file(tmp_path):
    config = load(tmp_path, TOML)
    ch0, radar = config.streams
    assert str(config.out) == "from-file"
    assert config.keep_bytes == 2 << 30
    assert (ch0.assembly, ch0.rotate_bytes, ch0.ring_bytes, ch0.sync) == ("markers", 1 << 20, 128 << 20, "batch")
    assert (ch0.layout.magic, ch0.layout.max_payload) == ("0011223344556677", 65536)
    assert (radar.assembly, [s.kind for s in radar.sources]) == ("count:8", ["udp", "tcp"])


def test_retention_is_set_for_the_recording_every_stream_or_one(tmp_path):
    toml = """
    out = "run"
    keep_bytes = "1TiB"

    [defaults]
    keep_seconds = "7d"

    [streams.ch0]
    url = "udp://127.0.0.1:9001?keep_segments=4"

    [streams.ch1]
    url = "udp://127.0.0.1:9002"
    keep_seconds = "1h"
    min_free_bytes = "50GiB"
    on_low_disk = "evict"
    """
    config = load(tmp_path, toml, environ={"TAPELINE_STREAMS__CH1__KEEP_BYTES": "1GiB"})
    ch0, ch1 = config.streams
    assert (config.keep_bytes, config.keep_seconds, config.on_low_disk) == (1 << 40, None, "stop")
    assert (ch0.keep_segments, ch0.keep_seconds, ch0.keep_bytes, ch0.min_free_bytes) == (4, 7 * 86400, None, None)
    assert (ch1.keep_seconds, ch1.keep_bytes, ch1.min_free_bytes, ch1.on_low_disk) == (3600, 1 << 30, 50 << 30, "evict")
    with pytest.raises(ConfigError, match=r"streams\.ch0\.on_low_disk: 'ask' is not allowed; allowed: stop, evict"):
        one(on_low_disk="ask")


def test_environment_wins_over_the_file_and_flags_over_both(tmp_path):
    environ = {
        "TAPELINE_OUT": "from-environment",
        "TAPELINE_KEEP_BYTES": "none",
        "TAPELINE_STREAMS__CH0__ROTATE_BYTES": "2MiB",
        "TAPELINE_STREAMS__RADAR_2__LAYOUT__HEADER_CRC": "no",
        "TAPELINE_DEFAULTS__HOLD_SECONDS": "250ms",
        "TAPELINE_TEST_EXAMPLES": "7",
        "OTHER": "x",
    }
    config = load(tmp_path, TOML, environ=environ)
    assert (str(config.out), config.keep_bytes) == ("from-environment", None)
    assert [s.rotate_bytes for s in config.streams] == [2 << 20, 1 << 20]
    assert [s.layout.header_crc for s in config.streams] == [True, False]
    assert {s.hold_seconds for s in config.streams} == {0.25}
    over = load(
        tmp_path,
        TOML,
        environ=environ,
        flags={"out": "from-flags", "streams": {"ch0": "tcp://127.0.0.1:9001"}},
        stream_flags={"rotate_bytes": "3MiB"},
    )
    assert str(over.out) == "from-flags"
    assert [s.rotate_bytes for s in over.streams] == [3 << 20, 3 << 20]
    ch0 = over.streams[0]
    # the URL was replaced, and the settings it carried went with it; those of the table stay
    assert (ch0.sources[0].kind, ch0.ring_bytes, ch0.layout.magic) == ("tcp", 64 << 20, "d1c64f93a7b25e8c")
    assert ch0.sync == "batch"


def test_environment_alone_makes_a_configuration():
    config = RecorderConfig.load(environ={"TAPELINE_OUT": "r", "TAPELINE_STREAMS__CH0__URL": URL})
    assert [s.name for s in config.streams] == ["ch0"]


def test_a_dict_ignores_the_environment(monkeypatch):
    monkeypatch.setenv("TAPELINE_OUT", "elsewhere")
    assert str(one().out) == "run"


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("out = 'r'\nkeep_byte = 1", r"c\.toml: unknown key 'keep_byte'; did you mean 'keep_bytes'\? allowed: .*out"),
        ("out = 'r'\n[streams.a]\nring_byte = 1", r"c\.toml: streams\.a: unknown key 'ring_byte'; did you mean 'ring_"),
        ("[streams.a]\nlayout = {magik = ''}", r"c\.toml: streams\.a\.layout: unknown key 'magik'.*'magic'"),
        ("[defaults]\nassembli = ''", r"c\.toml: defaults: unknown key 'assembli'; did you mean 'assembly'"),
        ("[streams]\na = 'udp://:1?asembly=x'", r"c\.toml: streams\.a.*unknown key 'asembly'.*'assembly'"),
        ("[streams.a]\nurl='udp://:1?max_open=1'\nmax_open=2", "set here and in the URL"),
        ("[streams.a]\nurl='udp://:1'\nsources=[]", "either url or sources"),
        ("[streams.a]\nsources=[]", "neither a URL nor a list"),
        ("[streams.a]\nurl='nonsense'", r"c\.toml: streams\.a\.url: 'nonsense' is not a URL"),
        ("out = 1", r"c\.toml: out: 1 is not a path"),
        ("streams = 1", "not a table"),
        ("out = ", "not a TOML file"),
        ("out = 'r'", "0 streams; allowed: 1 to 256"),
        ("[streams]\na = 'udp://:1'", "out: missing"),
        ("out = 'r'\n[streams.a]\ngro = true", "needs a source"),
        ("on_low_disk = 'panic'", r"on_low_disk: 'panic' is not allowed; allowed: stop, evict"),
    ],
)
def test_errors_name_the_file_the_key_and_what_is_allowed(tmp_path, toml, says):
    with pytest.raises(ConfigError, match=says) as caught:
        load(tmp_path, toml)
    assert "\n" not in str(caught.value)


def test_an_unknown_variable_is_named():
    with pytest.raises(ConfigError, match="environment variable TAPELINE_OUTT: unknown key 'outt'; did you mean 'out'"):
        RecorderConfig.load(environ={"TAPELINE_OUTT": "x"})
    with pytest.raises(
        ConfigError, match=r"TAPELINE_STREAMS__A__RING_BYTES: streams\.a\.ring_bytes: 'x' is not a size"
    ):
        RecorderConfig.load(environ={"TAPELINE_STREAMS__A__RING_BYTES": "x"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ring_bytes", RING_BYTES - 1),
        ("ring_bytes", 1 << 37),
        ("ring_bytes", -1),
        ("ring_bytes", True),
        ("ring_bytes", 1.5),
        ("ring_bytes", "64 bananas"),
        ("receive_buffer_bytes", 1),
        ("reorder_window", 63),
        ("reorder_window", "1e3"),
        ("max_open", 0),
        ("max_open", 2.0),
        ("max_periodic_bytes", 1000),
        ("hold_seconds", 61),
        ("hold_seconds", float("nan")),
        ("hold_seconds", "-1s"),
        ("rotate_bytes", 255),
        ("rotate_seconds", 0),
        ("sync", "never"),
        ("sync", "interval:0"),
        ("sync", "interval:inf"),
        ("assembly", "count:0"),
        ("assembly", "count:4294967296"),
        ("assembly", "count:-1"),
        ("assembly", None),
        ("gro", "maybe"),
        ("gro", 1),
        ("wire", "modbus"),
        ("max_clients", 0),
        ("max_buffer_bytes", 65535),
        ("image_seconds", 0),
        ("idle_timeout_seconds", 0),
        ("connect_backoff_seconds", [5, 1]),
        ("connect_backoff_seconds", [0, 1]),
        ("connect_backoff_seconds", [1]),
        ("layout", {"magic": "00"}),
        ("layout", {"magic": "zz" * 8}),
        ("layout", {"version_flags": 3}),
        ("layout", {"length_bytes": True}),
        ("layout", {"max_payload": 0}),
        ("layout", {"max_payload": 2 << 30}),
        ("layout", {"max_payload": "32MiB"}),
        ("layout", 4),
    ],
)
def test_values_out_of_bounds_are_refused(key, value):
    with pytest.raises(ConfigError, match=re.escape(f"streams.ch0.{key}") if key != "layout" else "layout|ring_bytes"):
        one(**{key: value})


@pytest.mark.parametrize(
    ("key", "value", "stored"),
    [
        ("ring_bytes", RING_BYTES, RING_BYTES),
        ("rotate_bytes", "none", None),
        ("rotate_bytes", None, None),
        ("sync", "interval:500ms", "interval:0.5"),
        ("assembly", "count:0008", "count:8"),
        ("gro", "off", False),
        ("connect_backoff_seconds", "0.5,2s", (0.5, 2.0)),
        ("idle_timeout_seconds", "1min", 60.0),
    ],
)
def test_values_are_brought_into_one_form(key, value, stored):
    assert getattr(one(**{key: value}).streams[0], key) == stored


NASTY = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "a\\b",
    "/abs",
    ".hidden",
    "a.",
    "CON",
    "con",
    "nul.txt",
    "COM1",
    "lpt9.a",
    "Aux",
    "a b",
    "a\0b",
    "a\nb",
    "%2e%2e",
    "ä",
    "\u0430bc",
    "ch\uff10",
    "a" * 65,
    "recording.json",
    "Recording.JSON",
    "a:b",
    "a*",
    "~",
    "$HOME",
    "`id`",
    "a\u202eb",
    "ch0\ud800",
    "é" * 10,
    "a|b",
    "<img>",
    "a;b",
    "'a'",
    '"a"',
    "a?b",
    "ch0/../../x",
]


@pytest.mark.parametrize("name", NASTY)
def test_nasty_stream_names_are_refused(name):
    with pytest.raises(ConfigError):
        RecorderConfig.from_dict({"out": "r", "streams": {name: URL}})


@pytest.mark.parametrize("name", ["a", "ch0", "Radar-2", "a.b", "_x", "-x", "0", "a" * 64, "console", "com10"])
def test_plain_stream_names_are_taken(name):
    check_stream_name(name)


@pytest.mark.parametrize(
    ("streams", "says"),
    [
        ({"a": URL, "A": URL}, "share one name"),
        ({"a": "-", "b": "-"}, "share one standard input"),
        ({"a": "udp://:9001", "b": "udp://127.0.0.1:9001"}, "share one address, udp://127.0.0.1:9001"),
        ({"a": ["tcp://:1", "tcp://:2"]}, "cannot be merged"),
        ({"a": ["udp://:1", "tcp://:2", "file://x"]}, "cannot be merged"),
        ({"a": ["udp://:1", "-"]}, "cannot be merged"),
        ({"a": {"url": URL, "split_by_stream_id": True}, "a.7": URL}, "may need"),
        ({"a" * 60: {"url": URL, "split_by_stream_id": True}}, "at most 58"),
        ({f"s{n}": URL for n in range(257)}, "257 streams"),
    ],
)
def test_streams_that_clash_are_refused(streams, says):
    with pytest.raises(ConfigError, match=says):
        RecorderConfig.from_dict({"out": "r", "streams": streams})


def test_same_port_over_two_transports_is_no_clash():
    RecorderConfig.from_dict({"out": "r", "streams": {"a": ["udp://:9001", "tcp://:9001"], "b": URL, "c": URL}})


@pytest.mark.parametrize("url", ["udp://0.0.0.0:9001", "tcp://[::]:9001", "tcp://192.0.2.7:9001"])
def test_listening_beyond_this_machine_needs_leave(url):
    with pytest.raises(ConfigError, match="allow_insecure_bind"):
        RecorderConfig.from_dict({"out": "r", "streams": {"a": url}})
    RecorderConfig.from_dict({"out": "r", "allow_insecure_bind": True, "streams": {"a": url}})


def test_every_setting_is_described_once():
    keys = [info.key for info in RecorderConfig.describe()]
    assert len(keys) == len(set(keys))
    names = {f.name for c in (RecorderConfig, StreamConfig, LayoutConfig) for f in dataclasses.fields(c)}
    assert names - {"streams", "name", "layout"} <= {key.rpartition(".")[2] for key in keys}
    assert all(info.doc.endswith(".") for info in RecorderConfig.describe())


# --- sizes and times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("1_000", 1000),
        ("1k", None),
        ("1K", 1024),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1.5KiB", 1536),
        ("256MiB", 268435456),
        ("2G", 2 << 30),
        ("1 TB", 10**12),
        (7, 7),
        ("-1", None),
        ("", None),
        (True, None),
        ("1.5", None),
        (1.0, None),
        ("٣", None),
        ("1e3", None),
    ],
)
def test_sizes(text, amount):
    if amount is None:
        with pytest.raises(ValueError, match=r"size|whole"):
            parse_size(text)
    else:
        assert parse_size(text) == amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10", 10),
        ("10s", 10),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("2 min", 120),
        ("1d", 86400),
        (1.5, 1.5),
        ("5us", 5e-6),
        ("", None),
        ("s", None),
        ("-1s", None),
        ("nan", None),
        (float("inf"), None),
        ("1M", None),
        (True, None),
        ("1s x", None),
    ],
)
def test_durations(text, seconds):
    if seconds is None:
        with pytest.raises(ValueError, match="not a time"):
            parse_duration(text)
    else:
        assert parse_duration(text) == pytest.approx(seconds)


def test_rotation_is_a_size_or_a_time():
    assert parse_rotation("10M") == ("rotate_bytes", 10 << 20)
    assert parse_rotation("10m") == ("rotate_seconds", 600)
    with pytest.raises(ValueError, match="neither a size"):
        parse_rotation("soon")


def test_the_compiled_recorder_agrees_about_the_smallest_ring():
    import tapeline

    tapeline.Recorder(one(ring_bytes=RING_BYTES))
    raw = json.loads(one(ring_bytes=RING_BYTES).to_json())
    raw["streams"][0]["ring_bytes"] -= 1
    with pytest.raises(ConfigError, match="ring_bytes"):
        tapeline._native.Recorder(json.dumps(raw)).start()
