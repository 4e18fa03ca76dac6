"""The routes of a server, one module per family of clients."""
