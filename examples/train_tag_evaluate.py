"""Train on image labels, tag images, and measure how right the tags are.

    python train_tag_evaluate.py        # writes out/first

Some seconds without a GPU: the images are small drawings and the network is tiny. What to change for real data stands
beside each line.
"""

from pathlib import Path

import radtag
from radtag.data.sources import open_source
from radtag.evaluate import evaluate
from radtag.train.classify import train
from radtag.train.settings import settings_from

out = Path("out/first")

# Images, a label for each finding, and who they are of. Yours: open_source("csv:table.csv").
dataset = open_source("phantom:280?side=64", findings=["effusion", "cardiomegaly"])

settings = settings_from(
    "small",  # the recipe for some thousand images
    method="pylon",
    backbone={"name": "test_resnet", "weights": "none"},  # real images: {"name": "resnet50", "weights": "timm"}
    options={"pool": "lse"},
    size_px=64,  # 256 and more
    epochs=12,  # leave out
    lr=3e-3,  # leave out
)
run = train(settings, dataset, out / "run")  # reads the labels of the splits train and val, and no outline

# Tag any file: PNG, JPEG, DICOM, TIFF, NIfTI.
test = dataset.only("test")
tagger = radtag.load(out / "run")
ill = [record.path for record in test.records if 1 in record.labels]
for tag in tagger.tag(ill[:3]):
    said = "positive" if tag.positive else "negative"
    print(f"{tag.image}: {tag.finding:12} {tag.score:.2f} {said}, {tag.mask_area_px} pixels marked, {tag.boxes}")
    assert tag.map.shape == tag.mask.shape  # both in the image's own pixels

# Scores of images nobody trained on; lesions' outlines, where there are any, are read here alone.
result = evaluate(tagger, test, out / "evaluation", bootstraps=200)
for metric in ("auroc", "pointing", "dice"):
    entry = result["macro"][metric]
    print(f"{metric}: {entry['value']:.2f} (95 % interval {entry['low']:.2f} to {entry['high']:.2f})")
print(f"-> {out / 'evaluation/report.html'}")
