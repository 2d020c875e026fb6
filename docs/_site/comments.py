"""A field without a docstring is described by the comment behind it, or by its `Field`."""

import re
from typing import Any

from griffe import Attribute, Docstring, Extension

SAID = re.compile(r'  # (.+)$|description="((?:[^"\\]|\\.)+)"', re.MULTILINE)


class FieldComments(Extension):
    """Takes such words for the docstring of an attribute that has none."""

    def on_attribute_instance(self, *, attr: Attribute, **kwargs: Any) -> None:
        """Called by griffe for every attribute that it finds."""
        found = SAID.findall("\n".join(attr.lines)) if attr.docstring is None else []
        words = " ".join(comment or described for comment, described in found)
        if words:
            attr.docstring = Docstring(words, lineno=attr.lineno, parent=attr)
