_base_ = ["mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py", "./_base_/agent.py"]
train_cfg = dict(type="AgentIterLoop")
train_dataloader = dict(sampler=dict(_delete_=True, type="AgentSampler"))
