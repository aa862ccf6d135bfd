_base_ = ["mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py", "./_base_/agent.py"]
train_cfg = dict(type="AgentIterLoop")
train_dataloader = dict(sampler=dict(_delete_=True, type="AgentSampler"))
