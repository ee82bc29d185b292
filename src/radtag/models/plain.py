"""Files of torch.save, read as tensors and plain values: no code in them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


class NotPlain(Exception):
    """A file that is damaged, or that would have to run code to be read; its text is torch's reason."""


def load_plain(file: Path) -> Any:
    """What a file of torch.save holds, on the CPU.

    Raises:
        NotPlain: it is damaged, or holds more than tensors and plain values.
        OSError: it cannot be read.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # damaged bytes are taken for instructions, which fail in any way
        raise NotPlain((str(error).splitlines() or [type(error).__name__])[0][:100]) from error
