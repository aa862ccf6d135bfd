# The light UperNet on CamVid-like data (11 classes, folders as ADE20K has them), for comparisons on a CPU.
# python tools/train_seg.py configs/seg/upernet_light_camvid.py --cfg-options train_dataloader.dataset.data_root=DATA
# val_dataloader.dataset.data_root=DATA test_dataloader.dataset.data_root=DATA
_base_ = ["./upernet_light_scenes.py"]
classes = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
crop_size = (96, 96)
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=len(classes)),
    auxiliary_head=dict(num_classes=len(classes)),
)
data = dict(data_root="data/camvid", metainfo=dict(classes=classes))
train_dataloader = dict(
    dataset=dict(
        **data,
        data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(180, 135), ratio_range=(0.75, 1.5), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        **data,
        # CamVid's test split: two drives; its small validation split is one, in another light, and says less
        data_prefix=dict(img_path="images/test", seg_map_path="annotations/test"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(180, 135), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    )
)
test_dataloader = val_dataloader
