_base_ = ["mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.py", "./_base_/agent.py"]
train_cfg = dict(type="AgentIterLoop")
train_dataloader = dict(sampler=dict(_delete_=True, type="AgentSampler"))
