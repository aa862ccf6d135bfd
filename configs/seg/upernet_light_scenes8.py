# The light UperNet on embedded scenes of eight classes, 96 px, for the demo: minutes on a CPU.
_base_ = "./upernet_light_scenes.py"
classes = ("background", "disc", "square", "triangle", "star", "bar", "cross", "arrow", "moon")
# Most pixels are background: without the weights a short training learns the rare classes late.
loss = dict(class_weight=[0.15, 1, 1, 1, 1, 1, 1, 1, 1])
model = dict(
    decode_head=dict(num_classes=len(classes), loss_decode=loss),
    auxiliary_head=dict(num_classes=len(classes), loss_decode=loss),
)
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
val_dataloader = dict(dataset=dict(metainfo=dict(classes=classes)))
test_dataloader = val_dataloader
