"""Addresses, and the endpoints of a page that is served in a process of its own."""

import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import Served

from rmaat.errors import UserError
from rmaat.serve.server import address, bind, is_loopback

TEXT = "rain and wind, <b>né</b> " * 10


def test_a_port_in_use_is_a_mistake_of_the_user():
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert address(first, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        assert is_loopback(first)
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1: Address already in use; choose another --port"):
            bind("127.0.0.1", port)
    bind("127.0.0.1", port).close()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [("127.0.0.1", -1, "0 to 65535"), ("127.0.0.1", 65536, "0 to 65535"), ("256.0.0.1", 0, "host '256.0.0.1'")],
)
def test_wrong_addresses(host, port, message):
    with pytest.raises(UserError, match=message):
        bind(host, port)


def test_all_addresses_are_not_only_this_computer():
    with bind("0.0.0.0", 0) as listener:
        assert not is_loopback(listener)


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_an_address_of_ipv6_has_brackets():
    try:
        listener = bind("::1", 0)
    except UserError:
        pytest.skip("this computer has no IPv6 address")
    with listener:
        assert is_loopback(listener)
        assert address(listener, "::1").startswith("http://[::1]:")


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def post(url: str, data: Any, **headers: str) -> Any:
    body = json.dumps(data).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
    with OPENER.open(request, timeout=240) as response:
        return json.load(response)


def events(served: Served, endpoint: str, argument: Any) -> list[tuple[str, Any]]:
    """Call an endpoint as its page of the documentation does, and return the kinds and values of its events."""
    url = f"{served.url}gradio_api/call/{endpoint}"
    event = post(url, {"data": [argument]})["event_id"]
    with OPENER.open(f"{url}/{event}", timeout=240) as response:
        blocks = response.read().decode().strip().split("\n\n")
    lines = [block.splitlines() for block in blocks]
    return [(kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for kind, data in lines]


def rmaat(*words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "rmaat", *words], text=True, check=True, capture_output=True, **options
    )


@pytest.mark.slow
def test_the_endpoints_have_the_answers_of_the_command_line(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(TEXT)
    model = ["--model", str(served.run)]
    rmaat("predict", *model, str(file), "--output", str(tmp_path / "a.jsonl"))
    rmaat("explain", *model, str(file), "--output", str(tmp_path))
    prediction = json.loads((tmp_path / "a.jsonl").read_text())
    explanation = json.loads((tmp_path / "explanation.json").read_text())

    ((kind, [answers]),) = events(served, "predict", [TEXT, ""])
    assert kind == "complete"
    assert answers[0] == {**{key: prediction[key] for key in ("label", "probabilities")}, "truncated": False}
    assert "empty" in answers[1]["error"]

    assert events(served, "explain", TEXT) == [("complete", [explanation])]

    *rows, (last, _) = events(served, "stream", TEXT)
    assert last == "complete"
    assert {kind for kind, _ in rows} == {"generating"}
    assert len(rows) == len(explanation["segments"]) > 10
    for number, ((_, [row]), segment) in enumerate(zip(rows, explanation["segments"], strict=True), 1):
        assert (row["segment"], row["segments"], row["text"]) == (number, len(rows), segment["text"])
        assert list(row["probabilities"]) == explanation["label_names"]
        assert list(row["probabilities"].values()) == pytest.approx(segment["probabilities"], rel=1e-4)

    ((kind, content),) = events(served, "explain", "a" * 40_001)
    assert kind == "error"
    assert content["error"].startswith("the text has 40,001 bytes, and this page reads at most 40,000")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "data", "headers", "status"),
    [
        ("gradio_api/file=/etc/passwd", None, {}, 404),
        ("gradio_api/upload", {}, {}, 404),
        ("docs", None, {}, 404),
        ("gradio_api/call/predict", {"data": ["a" * 400_000]}, {}, 413),
        ("gradio_api/call/predict", {"data": [["a"]]}, {"origin": "https://evil.example"}, 403),
        ("", None, {"host": "evil.example"}, 421),
    ],
)
def test_requests_that_the_page_does_not_need_are_refused(served, path, data, headers, status):
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(served.url + path, body, {"content-type": "application/json", **headers})
    with pytest.raises(urllib.error.HTTPError) as refused:
        OPENER.open(request, timeout=240)
    assert refused.value.code == status


@pytest.mark.slow
def test_a_client_of_gradio_gets_the_answers(served):
    client = pytest.importorskip("gradio_client").Client(served.url, verbose=False)
    (answer,) = client.predict(["rain"], api_name="/predict")
    assert answer["label"] in ("rain", "bread")
    rows = list(client.submit(TEXT, api_name="/stream"))
    assert [row["segment"] for row in rows[:5]] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_ctrl_c_ends_it_and_leaves_nothing(served: Served) -> None:
    """The last test of the module, because the page ends here."""
    assert len(list(served.temporary.iterdir())) == 1
    # A client that waits for its events does not hold the server.
    url = f"{served.url}gradio_api/call/stream"
    event = post(url, {"data": ["rain " * 7000]})["event_id"]
    with OPENER.open(f"{url}/{event}", timeout=240) as response:
        response.readline()
        status, output = served.interrupt()
    assert (status, output) == (130, "rmaat: interrupted\n")
    assert list(served.temporary.iterdir()) == []
