"""The parts of the page, without a server."""

import base64
import socket

import pytest
from tests.training.untrained import untrained

from rmaat.errors import UserError
from rmaat.serve.answers import Answers

gradio = pytest.importorskip("gradio", reason="needs the extra 'serve'")
page = pytest.importorskip("rmaat.serve.page")


def test_the_endpoints_are_public_and_the_page_s_functions_are_not(monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection to another computer")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    blocks = page.build(Answers(untrained(), 1000), "<run>", 3)
    public = blocks.get_api_info()["named_endpoints"]
    assert set(public) == {"/predict", "/explain", "/stream"}
    assert [p["parameter_name"] for p in public["/predict"]["parameters"]] == ["texts"]
    functions = blocks.fns.values()
    assert {function.concurrency_id for function in functions if function.fn is not None} == {"model"}
    assert {function.concurrency_limit for function in functions if function.fn is not None} == {1}
    assert blocks.analytics_enabled is False
    assert "&lt;run&gt;" in str(blocks.config)


def event(**data: object) -> object:
    return gradio.EventData(None, data)


def test_a_dropped_file_is_decoded():
    content = base64.b64encode(b"text").decode()
    assert page.uploaded(event(name="a.txt", content=content), 10) == ("a.txt", b"text")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": "a.txt", "content": None}, "'a.txt' has more than 10 bytes"),
        ({"name": "a.txt", "content": "no base64!"}, "did not arrive whole"),
        ({"name": "a.txt", "content": 1}, "the page sent no file"),
        ({}, "the page sent no file"),
    ],
)
def test_wrong_events_of_a_drop(data, message):
    with pytest.raises(UserError, match=message):
        page.uploaded(event(**data), 10)


def test_a_mistake_reaches_the_client_without_a_traceback():
    with pytest.raises(gradio.Error, match="too long") as error, page.refusals():
        raise UserError("too long")
    assert not error.value.print_exception
