"""The running process's Unix socket: its status, and read-only queries beside it."""
