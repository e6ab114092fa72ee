"""Other ways to copy a table once, each as a program of its own in the environment that it needs."""
