"""URLs of sources and destinations."""

import pytest

from tapeline.errors import ConfigError
from tapeline.urls import parse_destination, parse_source


@pytest.mark.parametrize(
    ("url", "kind", "address", "path", "group"),
    [
        ("udp://127.0.0.1:9001", "udp", "127.0.0.1:9001", None, None),
        ("udp://:9001", "udp", "127.0.0.1:9001", None, None),
        ("tcp://:0", "tcp", "127.0.0.1:0", None, None),
        ("tcp://localhost:65535", "tcp", "127.0.0.1:65535", None, None),
        ("tcp://127.0.0.1:9001/", "tcp", "127.0.0.1:9001", None, None),
        ("tcp+connect://127.0.0.1:1", "tcp+connect", "127.0.0.1:1", None, None),
        ("udp://[::1]:9001", "udp", "[::1]:9001", None, None),
        ("udp://239.1.2.3:9001", "udp", "239.1.2.3:9001", None, "239.1.2.3"),
        ("udp://[ff02::1]:9001", "udp", "[ff02::1]:9001", None, "ff02::1"),
        ("file:///data/a.dat", "file", None, "/data/a.dat", None),
        ("file://localhost/data/a.dat", "file", None, "/data/a.dat", None),
        ("file://a.dat", "file", None, "a.dat", None),
        ("file://a%20b%3F.dat", "file", None, "a b?.dat", None),
        ("-", "stdin", None, None, None),
    ],
)
def test_source_forms(url, kind, address, path, group):
    source, settings = parse_source(url)
    assert (source.kind, source.address, source.path, source.group) == (kind, address, path, group)
    assert source.url == url
    assert settings == {}


def test_settings_after_the_question_mark_are_given_back_and_interface_stays():
    source, settings = parse_source("udp://239.1.2.3:9001?interface=127.0.0.1&assembly=count:8&wire=frame")
    assert source.interface == "127.0.0.1"
    assert settings == {"assembly": "count:8", "wire": "frame"}
    assert source.as_dict() == {
        "kind": "udp",
        "url": "udp://239.1.2.3:9001?interface=127.0.0.1&assembly=count:8&wire=frame",
        "address": "239.1.2.3:9001",
        "path": None,
        "group": "239.1.2.3",
        "interface": "127.0.0.1",
    }


def test_standard_input_takes_settings():
    source, settings = parse_source("shm://battery?wire=packet")
    assert (source.kind, source.path, settings) == ("shm", "battery", {"wire": "packet"})
    assert parse_source("shm:///data/a%20ring")[0].path == "/data/a ring"
    source, settings = parse_source("-?assembly=markers")
    assert (source.kind, settings) == ("stdin", {"assembly": "markers"})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "not a URL"),
        ("ch0.dat", "allowed: udp://"),
        ("127.0.0.1:9001", "not a URL"),
        ("http://127.0.0.1:80", "unknown scheme 'http'"),
        ("UDP://127.0.0.1:80", "not a URL"),
        ("kafka://broker/topic", "not in this version"),
        ("shm://", "a ring needs a name"),
        ("udp://127.0.0.1", "expected HOST:PORT"),
        ("udp://9001", "expected HOST:PORT"),
        ("udp://127.0.0.1:", "expected HOST:PORT"),
        ("udp://127.0.0.1:x", "expected HOST:PORT"),
        ("udp://127.0.0.1:-1", "expected HOST:PORT"),
        ("udp://127.0.0.1:65536", "not in 0..65535"),
        ("tcp+connect://127.0.0.1:0", "not in 1..65535"),
        ("udp://user@127.0.0.1:9001", "expected HOST:PORT"),
        ("udp://127.0.0.1:9001/path", "expected HOST:PORT"),
        ("udp://::1:9001", "expected HOST:PORT"),
        ("udp://[::1:9001", "expected HOST:PORT"),
        ("udp://no.such.host.invalid:9001", "no address for host"),
        ("udp://127.0.0.1:9001?gro", "NAME=VALUE"),
        ("udp://127.0.0.1:9001?gro=1&gro=0", "given twice"),
        ("udp://127.0.0.1:9001?interface=127.0.0.1", "multicast group"),
        ("udp://239.1.2.3:9001?interface=eth0", "not an address"),
        ("udp://239.1.2.3:9001?interface=::1", "same family"),
        ("tcp://239.1.2.3:9001", "only udp"),
        ("file://", "needs a path"),
        ("file://a%00b", "needs a path"),
        ("udp://127.0.0.1:9001\n", "not a URL"),
        ("udp://\x1b[31m:9001", "not a URL"),
        ("udp://" + "a" * 5000 + ":9001", "not a URL"),
        ("udp://" + "a" * 300 + ":9001", "no address for host"),
        ("udp://١٢٧.0.0.1:9001", "no address for host"),
    ],
)
def test_wrong_sources_are_refused_with_the_reason(url, says):
    with pytest.raises(ConfigError, match=says.replace("+", r"\+").replace(".", r"\.")) as caught:
        parse_source(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("url", "beyond"),
    [
        ("udp://127.0.0.1:1", False),
        ("udp://127.9.9.9:1", False),
        ("tcp://[::1]:1", False),
        ("udp://0.0.0.0:1", True),
        ("tcp://[::]:1", True),
        ("tcp://192.0.2.1:1", True),
        ("udp://239.1.2.3:1", False),
        ("tcp+connect://192.0.2.1:1", False),
        ("file://a", False),
    ],
)
def test_what_listens_beyond_this_machine(url, beyond):
    assert parse_source(url)[0].beyond_loopback is beyond


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("udp://:9001", ("udp", "127.0.0.1", 9001, None)),
        ("tcp://127.0.0.1:9001", ("tcp", "127.0.0.1", 9001, None)),
        ("tcp+connect://[::1]:9001", ("tcp", "::1", 9001, None)),
        ("file://out.dat", ("file", None, None, "out.dat")),
        ("-", ("file", None, None, "-")),
    ],
)
def test_destinations(url, expected):
    d = parse_destination(url)
    assert (d.kind, d.host, d.port, d.path) == expected


@pytest.mark.parametrize("url", ["udp://:0", "udp://:9001?gro=1", "http://a:1", "nothing"])
def test_wrong_destinations_are_refused(url):
    with pytest.raises(ConfigError):
        parse_destination(url)
