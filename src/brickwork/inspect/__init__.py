"""Looking at networks."""

from ._summary import Summary as Summary
from ._summary import summarize as summarize
