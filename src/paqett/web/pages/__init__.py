"""The web pages: server-rendered, thin, on the same handlers as the API."""
