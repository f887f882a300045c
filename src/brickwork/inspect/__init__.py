"""Looking at networks."""

from ._summary import Summary as Summary, summarize as summarize
