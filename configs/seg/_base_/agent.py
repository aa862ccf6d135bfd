# Joins the agent to a recipe. The recipe itself sets, as the base that it inherits has these keys already:
#   train_cfg = dict(type='AgentIterLoop')     (or AgentEpochLoop, where the base counts epochs)
#   train_dataloader = dict(sampler=dict(_delete_=True, type='AgentSampler'))
custom_imports = dict(imports=["det_seg_agent.seg"], allow_failed_imports=False)
custom_hooks = [dict(type="AgentHook")]
# Every setting of the agent; --cfg-options agent.ratio=0.5 agent.strategy=random
agent = dict(strategy="agent", ratio=0.6)
