"""The command line: one module a verb, each a thin shell over a call. Nothing heavy is imported before it is needed."""
