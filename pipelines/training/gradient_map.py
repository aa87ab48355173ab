"""Grad-CAM: which places of the last feature map raise a label's logit. Of the float model only.

The int8 file that is served has no gradients, so this explains its float parent; occlusion
(`pipelines.serving.occlusion`) explains the served file itself. Called by
`fieldlens explain --method gradcam`.

References:
    Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
    localization", equations 1 and 2.
    Adebayo et al. 2018, "Sanity checks for saliency maps": a map that random weights leave as it
    is explains nothing; the tests hold both methods to that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.backbones.heads import Classifier


def grad_cam(
    model: Classifier,
    pixels: NDArray[np.uint8],
    class_index: int | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The Grad-CAM of one picture, and the logits that go with it.

    Args:
        model: in inference mode; its weights and gradients stay as they are.
        pixels: (h, w, 3) in [0, 255], as the model sees the picture.
        class_index: of the label that is explained; None for the one with the highest logit.
        mean: RGB, of pixels in [0, 1], as in training; so is std.

    Returns:
        (h, w) map, at least 0, in the logit's units times activations, bilinear between the cells
        of the feature map; and (n_classes,) logits.
    """
    image = torch.from_numpy(pixels.astype(np.float32) / 255)
    values = ((image - torch.tensor(mean)) / torch.tensor(std)).permute(2, 0, 1)[None]
    with torch.no_grad():
        activations = values
        for block in model.blocks[: model.n_maps]:
            activations = block(activations)  # (1, c, h', w')
    activations = activations.detach().requires_grad_()
    with torch.enable_grad():
        logits = model.head(model.embed(activations, model.n_maps))[0]
        chosen = int(logits.argmax()) if class_index is None else class_index
        (gradients,) = torch.autograd.grad(logits[chosen], activations)
    weights = gradients.mean(dim=(2, 3), keepdim=True)  # equation 1
    cells = torch.relu((weights * activations).sum(dim=1, keepdim=True))  # equation 2
    heat = nn.functional.interpolate(
        cells.detach(), size=pixels.shape[:2], mode="bilinear", align_corners=False
    )
    return heat[0, 0].numpy(), logits.detach().numpy()
