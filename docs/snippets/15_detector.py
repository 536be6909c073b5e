from pathlib import Path

import torch

from diptych.images import open_image
from diptych.detect import BoxRule, FasterRcnn, select
from diptych.models import EndToEnd, RegionEncoder, uniter_tiny
from diptych.nn import resnet_tiny

detector = FasterRcnn(classes=20, attributes=5, blocks=(1, 1, 1, 1), width=8, proposals=50)
pictures = [detector.prepare(open_image(path)) for path in sorted(Path("memes/img").glob("*.png"))[:2]]
rules = [BoxRule.parse(text) for text in ("36", "10:100")]
with torch.inference_mode():
    detections = detector(pictures)
for detection in detections:
    fixed, adaptive = select(detection, rules)
    print(detection.size, len(fixed), len(adaptive), fixed.features.shape)

network = resnet_tiny(dilate_last=True, freeze_batch_norm=True)
model = EndToEnd(RegionEncoder(network), uniter_tiny(feature_dim=network.dim))
print(sorted(model.needs))
