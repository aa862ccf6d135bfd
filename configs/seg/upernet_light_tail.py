# The light UperNet on embedded scenes of eight classes, 96 px: the demo's, minutes on a CPU.
_base_ = "./upernet_light_scenes.py"
classes = ("background", "disc", "square", "triangle", "star", "bar", "cross", "arrow", "moon")
model = dict(decode_head=dict(num_classes=len(classes)), auxiliary_head=dict(num_classes=len(classes)))
split = dict(dataset=dict(metainfo=dict(classes=classes)))
train_dataloader = dict(
    dataset=dict(
        metainfo=dict(classes=classes),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(96, 96), ratio_range=(1.0, 1.3), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(96, 96)),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
    )
)
val_dataloader = split
test_dataloader = split
