"""The authors' published PYLON checkpoint under radtag's names.

A file of github.com/cmb-chula/pylon: a ``torch.save`` of a state dict, or of ``{"net": state dict, ...}``. It is loaded
with ``weights_only=True``, so that nothing in it is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from radtag.errors import BadData
from radtag.models.plain import NotPlain, load_plain

# Parts of the authors' names -> ours, in the order they are tried.
_RENAMES = [
    (r"^encoder\.", "backbone.net."),
    (r"^segmentation_head\.0\.", "head."),
    (r"^decoder\.pa\.mid\.0\.", "attention.mid."),
    (r"^decoder\.pa\.down([123])\.1\.", r"attention.down\1."),
    (r"^decoder\.pa\.conv([123])\.", r"attention.level\1."),
    (r"^decoder\.up3\.conv1\.", "up16.skip."),
    (r"^decoder\.up2\.conv1\.", "up8.skip."),
    (r"^decoder\.up1\.conv1\.", "up4.skip."),
    (r"^(attention\.\w+|up\d+\.skip\.\d)\.conv\.", r"\1.0."),
    (r"^(attention\.\w+|up\d+\.skip\.\d)\.bn\.", r"\1.1."),
    (r"^(up\d+\.skip)\.conv\.", r"\1.0.0."),  # "1layer": one block, not a sequence of two
    (r"^(up\d+\.skip)\.bn\.", r"\1.0.1."),
]


def read_published_pylon(file: Path | str) -> dict[str, Tensor]:
    """The checkpoint's tensors under the names of :class:`radtag.models.pylon.Pylon`.

    Raises:
        BadData: a file that is no such checkpoint, or would execute code when loaded.
    """
    file = Path(file)
    if not file.is_file():
        raise BadData(f"{file} does not exist. Give the checkpoint published with the PYLON paper.")
    try:
        content = load_plain(file)
    except NotPlain as error:
        raise BadData(
            f"{file} cannot be loaded without executing code from it ({error}). "
            "Give a torch.save of the state dict alone."
        ) from error
    return rename(_state_dict(content, file), file)


def _state_dict(content: Any, file: Path) -> Mapping[str, Tensor]:
    for _ in range(2):
        if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        content = content.get("net") if isinstance(content, Mapping) else None
    raise BadData(f'{file} holds neither a state dict nor {{"net": state dict}}. Give the published PYLON checkpoint.')


def rename(state: Mapping[str, Tensor], source: object) -> dict[str, Tensor]:
    """The authors' names -> ours; every tensor must be one of theirs.

    Raises:
        BadData: a name that is not in the published network.
    """
    renamed = {}
    for name, tensor in state.items():
        own = re.sub(r"^(module\.)?(net\.)?", "", name)
        for pattern, replacement in _RENAMES:
            own = re.sub(pattern, replacement, own)
        if not re.match(r"(backbone\.net|attention|up16|up8|up4|head)\.", own):
            raise BadData(f"{source}: {name!r} is no tensor of PYLON. Give the checkpoint published with the paper.")
        renamed[own] = tensor
    return renamed
