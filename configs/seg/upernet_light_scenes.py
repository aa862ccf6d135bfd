# A UperNet of 0.9 M parameters on the embedded scenes, for the demo and the tests: minutes on a CPU.
_base_ = ["mmseg::_base_/default_runtime.py", "./_base_/agent.py"]
classes = ("background", "disc", "square", "triangle", "star")
crop_size = (96, 96)
norm = dict(type="BN", requires_grad=True)
head = dict(
    in_channels=[16, 32, 64, 128],
    in_index=[0, 1, 2, 3],
    channels=32,
    dropout_ratio=0.1,
    num_classes=len(classes),
    norm_cfg=norm,
    align_corners=False,
    loss_decode=dict(type="CrossEntropyLoss", loss_weight=1.0),
)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        size=crop_size,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type="ResNetV1c",
        depth=18,
        stem_channels=16,
        base_channels=16,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 1, 1),
        strides=(1, 2, 2, 2),
        norm_cfg=norm,
        norm_eval=False,
        style="pytorch",
        contract_dilation=True,
    ),
    decode_head=dict(type="UPerHead", pool_scales=(1, 2, 3, 6), **head),
    auxiliary_head=dict(
        type="FCNHead",
        in_channels=64,
        in_index=2,
        channels=16,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=len(classes),
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)
data = dict(
    type="BaseSegDataset",
    data_root="runs/demo/scenes",
    metainfo=dict(classes=classes),
    img_suffix=".jpg",
    seg_map_suffix=".png",
    reduce_zero_label=False,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="AgentSampler"),
    dataset=dict(
        **data,
        data_prefix=dict(img_path="train", seg_map_path="masks/train"),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(128, 128), ratio_range=(0.8, 1.1), keep_ratio=True),
            dict(type="RandomCrop", crop_size=crop_size),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackSegInputs"),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        **data,
        data_prefix=dict(img_path="val", seg_map_path="masks/val"),
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.004, weight_decay=0.01))
param_scheduler = [dict(type="PolyLR", eta_min=1e-5, power=0.9, begin=0, end=840, by_epoch=False)]
train_cfg = dict(type="AgentIterLoop", max_iters=840, val_interval=840)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=200, max_keep_ckpts=2),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
randomness = dict(seed=0)
