"""Models behind a server with an OpenAI-compatible API: the client, the probe at the start, and requests as such a server takes them."""
