"""Launch files of training jobs as scenarios: Megatron-LM arguments, Megatron-Bridge or NeMo YAML, torchtitan TOML."""
