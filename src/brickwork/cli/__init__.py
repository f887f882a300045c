"""``brickwork`` on the command line: look into checkpoints of any format, convert, compare and verify them."""

from ._main import main as main
