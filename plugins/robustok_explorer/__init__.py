"""`robustok view`: a local page on which a run's tokenizer and generator can be tried by hand.

`opened_run.py` loads what a run has, `views.py` says what can be set in each view, and `drawing.py` draws a view: pure
functions from settings to images. `snippets.py` writes the same view as Python and as a command, `markup.py` as HTML,
`picture.py` as a PNG. `page.py` lays the page out with gradio, and `server.py` serves it on the loopback interface.
"""
