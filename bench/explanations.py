"""Grad-CAM of all findings of a batch, against what it cannot do without, and against ``grad-cam`` and MONAI.

    python bench/explanations.py [--backbone resnet50] [--batch 8] [--side 256] [--findings 14] [--rounds 3]

The classifier is our CAM network, explained at the coarsest feature, with random weights, which cost the same as
trained ones; on the CPU, in one process, one after another in every round:

- bound: one forward pass without a graph up to the feature, and from each finding's logits a short backward pass to
  it; nothing else;
- ours: ``radtag.saliency``, all findings in one call;
- package: pytorch_grad_cam's GradCAM, as most people use it: a call, and a pass through the whole network, for each
  finding;
- monai: monai.visualize's GradCAM in the same way.

Printed are the medians over rounds and their ratios; the aims are ours at most 1.1 times the bound, and 20 times as
fast as the package. "Of work" is in processors' time, which other programs disturb less.
"""

from __future__ import annotations

import statistics

import torch
from maps import Classifier, arguments, processor, seconds
from monai.visualize import GradCAM as MonaiGradCAM
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from radtag.models import BackboneOptions, build
from radtag.saliency import Explainer


def main() -> None:
    asked = arguments(__doc__)
    torch.manual_seed(0)
    images = torch.rand(asked.batch, 1, asked.side, asked.side).contiguous(memory_format=torch.channels_last)
    model = build("cam", asked.findings, BackboneOptions(name=asked.backbone, weights="none"), {}, asked.side)
    classifier = Classifier(model).to(memory_format=torch.channels_last).eval()
    explainer = Explainer(classifier, "gradcam", layer="coarsest")

    def bound() -> None:
        with torch.no_grad():
            feature = classifier.model.backbone(images)[-1]
        feature.requires_grad_()
        logits = classifier.model.head(feature).mean(dim=(2, 3))
        for finding in range(asked.findings):
            torch.autograd.grad(logits[:, finding].sum(), feature, retain_graph=True)

    def ours() -> None:
        assert explainer(images).values.shape[:2] == (asked.batch, asked.findings)

    def package() -> None:
        with GradCAM(model=classifier, target_layers=[classifier.coarsest]) as one_target:
            for finding in range(asked.findings):
                one_target(input_tensor=images, targets=[ClassifierOutputTarget(finding)] * asked.batch)

    def monai() -> None:
        one_class = MonaiGradCAM(nn_module=classifier, target_layers="coarsest")
        for finding in range(asked.findings):
            one_class(x=images, class_idx=finding)

    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"Grad-CAM of {asked.findings} findings, {asked.batch} images of {asked.side} px, {asked.backbone}")
    acts = {"bound": bound, "ours": ours, "package": package, "monai": monai}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in acts}
    bound()  # the first call is slower
    ours()
    for _ in range(asked.rounds):
        for name, act in acts.items():
            times[name].append(seconds(act))
        print("   ".join(f"{name} {of[-1][0]:.2f} s" for name, of in times.items()))
    for at, what in enumerate(("ratios", "of work")):
        middle = {name: statistics.median(one[at] for one in of) for name, of in times.items()}
        ratios = {name: middle[name] / middle["ours"] for name in ("package", "monai")}
        print(f"{what}: ours over the bound {middle['ours'] / middle['bound']:.2f}", end="")
        print("".join(f", {name} over ours {ratio:.1f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
