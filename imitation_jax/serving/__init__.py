"""The OpenAI-compatible server and its chat page.

- What may a request hold, and what is computed for it? `parameters.py`. To take another parameter: a field of its model
  there, and its use in `prepare`.
- Who computes when? `scheduler.py`: continuous batching, one thread for the device.
- How does an answer look, and how is it sent? `responses.py`, `app.py`.
- What is loaded and where is it served? `server.py`, `model.py`.
"""
