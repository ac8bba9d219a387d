# Types of the compiled module; the public, documented names are in the Python modules beside it.

__version__: str
debug_build: bool
