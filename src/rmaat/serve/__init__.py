"""A local page and HTTP endpoints for a finished run, behind `rmaat serve`.

The text of a user becomes rows of JSON, one for each segment, and the page draws these rows.

| file | what happens there |
|---|---|
| `answers.py` | texts in, predictions and explanations out, within limits |
| `drawing.py` | the parts of the page as HTML, with the user's text escaped |
| `page.py`, `drop.js` | the page and the endpoints, in Gradio |
| `guard.py` | requests are refused that the page does not need: large ones, other hosts, other paths |
| `server.py` | an address is bound, and the page is served until Ctrl-C |

Only `page.py` and `server.py` need Gradio and uvicorn, which comes with it.
"""
