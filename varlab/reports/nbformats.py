"""nbformat, without the seconds that its validator takes for grammars of web addresses, which notebooks do not have."""

import sys

GRAMMARS = "rfc3987_syntax"  # which jsonschema takes where it finds it

if GRAMMARS in sys.modules:
    import nbformat
else:
    sys.modules[GRAMMARS] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import nbformat
    finally:
        del sys.modules[GRAMMARS]

__all__ = ["nbformat"]
