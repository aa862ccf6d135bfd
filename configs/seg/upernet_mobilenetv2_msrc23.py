# UperNet with MobileNetV2 from ImageNet weights on MSRC-23-like data (folders as ADE20K has them), for a CPU.
_base_ = ["./upernet_light_camvid.py"]
classes = (
    "building", "grass", "tree", "cow", "horse", "sheep", "sky", "mountain", "aeroplane", "water", "face", "car",
    "bicycle", "flower", "sign", "bird", "book", "chair", "road", "cat", "dog", "body", "boat",
)  # fmt: skip
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type="MobileNetV2",
        widen_factor=1.0,
        strides=(1, 2, 2, 2, 1, 2, 1),
        dilations=(1,) * 7,
        out_indices=(1, 2, 4, 6),
        norm_cfg=dict(type="BN", requires_grad=True),
        init_cfg=dict(type="Pretrained", checkpoint="mmcls://mobilenet_v2"),
    ),
    decode_head=dict(in_channels=[24, 32, 96, 320], num_classes=len(classes)),
    auxiliary_head=dict(in_channels=96, num_classes=len(classes)),
)
data = dict(data_root="data/msrc23", img_suffix=".jpg", metainfo=dict(classes=classes))
train_dataloader = dict(dataset=dict(**data))
val_dataloader = dict(
    dataset=dict(**data, data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"))
)
test_dataloader = val_dataloader
