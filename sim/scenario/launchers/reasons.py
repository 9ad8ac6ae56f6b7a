"""Why a flag or key of a launch file is not in its scenario: what changes no step, and what does and cannot be said.

Names are those of megatron/training/arguments.py (NVIDIA/Megatron-LM core_v0.12.0 to core_v0.19.0) with _ for -, of
sections of Megatron-Bridge's ConfigContainer and of NeMo's recipes, and of torchtitan's JobConfig (@e347b1e5e).
"""

from collections.abc import Collection
from difflib import get_close_matches
from fnmatch import fnmatchcase

IDLE = (
    ("how often and where weights are saved or loaded is no part of a step", """
        save save_* load load_* no_save_* no_load_* ckpt_* no_ckpt_* dist_ckpt_* use_dist_ckpt non_persistent_*
        async_save finetune pretrained_checkpoint use_checkpoint_* use_mp_args_* no_use_tokenizer_model_*
        auto_detect_ckpt_format exit_on_missing_checkpoint persistent_save_interval use_persistent_ckpt_worker
        override_ckpt_iteration no_strict_fsdp_dtensor_load distrib_optim_fully_* enable_msc disable_msc checkpoint
        checkpoint.* exp_manager exp_manager.* ckpt.*"""),
    ("what is logged or profiled is no part of a step", """
        log_* tensorboard_* wandb_* timing_* no_one_logger one_logger_* app_tag_* profile profile_*
        use_pytorch_profiler record_memory_history memory_snapshot_path config_logger_dir
        no_barrier_with_level_1_timing no_log_* logging_* moe_per_layer_logging disable_straggler_* straggler_*
        dump_param_* flight_recorder_* nvtx_ranges use_nsys_profiler
        pytorch_profiler_* moe_routing_trace_* throughput_window_size otel_* run_workload_inspector_server logger
        logger.* profiling profiling.* metrics.* straggler.*
        nvrx_straggler.* tensor_inspect.* job.* debug.* memory_estimation.* hydra hydra.* run run.* trainer.log*
        trainer.logger trainer.enable_progress_bar trainer.enable_checkpointing trainer.enable_model_summary"""),
    ("where tokens come from changes no step", """
        data_path split *_data_path data_args_path per_split_data_args_path data_cache_path num_workers mock_data
        num_dataset_builder_threads dataloader_* no_create_attention_mask_in_dataloader no_mmap_bin_files sample_rate
        mask_prob short_seq_prob eod_mask_loss object_storage_cache_path mid_level_dataset_surplus fim_* s3_cache_path
        per_dataset_sequences_path sft sft_* data_parallel_random_init allow_ambiguous_pad_tokens dataset dataset.*
        data data.* training.dataset training.dataset_path training.dataloader*"""),
    ("only the size of the vocabulary is part of a step", """
        tokenizer_* vocab_file merge_file vocab_extra_ids tiktoken_* legacy_tokenizer trust_remote_code tokenizer
        tokenizer.* model.hf_assets_path model.tokenizer_path"""),
    ("changes what is learned and not how long a step takes", """
        lr lr_* min_lr decoupled_* warmup weight_decay* start_weight_decay end_weight_decay clip_grad adam_* sgd_*
        muon_* lion_* no_weight_decay_* apply_wd_* init_method_*
        *init_method *init_method.* embedding_init_method_* seed use_cpu_initialization
        override_opt_param_scheduler loss_scale initial_loss_scale min_loss_scale loss_scale_window hysteresis
        norm_epsilon rotary_base rotary_scaling_factor rotary_seq_len_interpolation_factor use_rope_scaling rope_*
        mscale* yarn_* no_yarn_* layernorm_epsilon moe_aux_loss_coeff moe_z_loss_coeff moe_router_bias_update_rate
        moe_router_topk_scaling_factor moe_input_jitter_eps mtp_loss_scaling_factor apply_layernorm_1p
        moe_router_load_balancing_type moe_router_pre_softmax no_initialization perform_initialization te_rng_tracker
        calculate_per_token_loss deterministic_mode attention_softmax_in_fp32 apply_query_key_layer_scaling
        no_query_key_layer_scaling fp8_margin fp8_amax_* fp8_interval moe_use_upcycling moe_upcycling_* scheduler
        scheduler.* rng rng.* peft.* optim.sched.* lr_scheduler.* optimizer.lr optimizer.min_lr optimizer.beta*
        optimizer.eps optimizer.adam_* optimizer.weight_decay optimizer.clip_grad optim.lr optim.betas
        optim.weight_decay optim.sched training.seed debug.seed
        init_model_with_meta_device rotary_interleaved qk_clip* mup_* use_mup adaptive_muon_* soap_* wd_incr_steps
        wsd_decay_steps head_lr_mult softmax_scale layernorm_zero_centered_gamma original_max_position_embeddings
        beta_fast beta_slow mrope_section moe_router_force_biased moe_router_quantile_* freeze_all_layers
        logits_load_* logits_save_* gradient_reduce_div_fusion no_gradient_reduce_div_fusion
        disable_bf16_reduced_precision_matmul"""),
    ("how many steps are run changes none of them", """
        train_iters train_samples exit_* eval_* full_validation multiple_validation_sets skip_train test_mode
        iterations_to_skip train_sync_interval rampup_samples phase_transition_iterations training.steps validation.*
        validation trainer.max_* trainer.val_check_interval trainer.limit_* trainer.num_sanity_val_steps
        train.train_iters train.eval_* train.exit_*"""),
    ("is of the processes that run it, not of a step", """
        distributed_* local_rank lazy_mpu_init use_mcore_models manual_gc* no_manual_gc_eval rerun_* error_injection_*
        inprocess_* enable_ft_package calc_ft_timeouts ft_* adlr_* disable_gloo_process_groups
        empty_unused_memory_level enable_experimental high_priority_stream_groups nccl_communicator_config_path
        check_weight_hash_* result_rejected_* no_check_for_nan_in_loss_and_grad check_for_* check_for_nan_in_grad
        yaml_cfg disable_jit_fuser pipeline_model_parallel_comm_backend tp_comm_bootstrap_backend use_gloo_*
        transformer_impl ft.* dist dist.* rerun_state_machine.* inprocess_restart.* env_vars env_vars.* comm.*
        training.gc_* name run_name restore_* trainer.accelerator trainer.strategy trainer.benchmark
        trainer.use_distributed_sampler trainer.replace_sampler_ddp experimental.custom_* ENV_VARS.* LAUNCHER TEST_TYPE
        METRICS MODE model.print_after_conversion"""),
    ("is for inference or for reinforcement learning, and this is training", """
        inference_* rl_* grpo_* langrl_* perform_rl_step flash_decode decode_only_cuda_graphs
        nccl_all_reduce_for_prefill mlp_chunks_for_prefill disable_chunked_prefill enable_chunked_prefill
        max_tokens_to_oom symmetric_ar_type cache_mla_latents"""),
    ("is of BERT, T5, retrieval or vision models, not of a decoder", """
        bert_* no_bert_* onnx_safe retro_* ict_* biencoder_* retriever_* vision_* img_* patch_dim dino_* num_classes
        titles_data_path query_in_block_prob use_one_sent_docs indexer_* swin_* mask_type mask_factor"""),
    ("fusions of its kernels are taken as the stack has them", """
        no_masked_softmax_fusion no_bias_*_fusion bias_*_fusion no_rope_fusion cross_entropy_*fusion*
        no_gradient_accumulation_fusion gradient_accumulation_fusion masked_softmax_fusion apply_rope_fusion
        moe_permute_fusion moe_router_fusion moe_grouped_gemm moe_use_legacy_grouped_gemm
        no_persist_layer_norm use_te_activation_func use_fused_weighted_squared_relu
        persist_layer_norm no_async_tensor_model_parallel_allreduce mla_down_proj_fusion deallocate_pipeline_outputs
        bias_activation_fusion bias_dropout_fusion transformer_engine mcore_gpt megatron_amp_O2"""),
    ("is not modelled; nothing stands for it", """
        dsa_* mhc_* enable_mhc_connections linear_* gdp_* gtp_* expert_gtp_* tensor_parallel_num_weight_shards
        expert_tensor_parallel_num_weight_shards relative_attention_* kitchen_* use_kitchen* quant_recipe
        te_precision_config_file moe_paged_stash* moe_expert_rank_capacity_factor hybrid_context_parallel
        max_seqlen_per_dp_cp_rank mtp_detach_heads mtp_hsm mtp_standalone use_grouped_gemm_for_* tp_comm_atomic_*"""),
    ("how buffers and copies are arranged is the stack's", """
        megatron_fsdp_* fsdp_* pin_cpu_* no_pin_cpu_* overlap_cpu_optimizer_d2h_h2d cpu_offloading_double_buffering
        use_torch_optimizer_for_cpu_offload cpu_offloading_retain_* fine_grained_offloading_* delay_offload_*
        *reduce_scatter_with_fp32_accumulation batch_p2p_* use_ring_exchange_p2p moe_hybridep_* moe_ncclep_*
        tp_comm_bulk_* tp_comm_split_* tp_comm_overlap_ag tp_comm_overlap_rs tp_comm_overlap_disable_*
        disable_symmetric_registration create_all_gather_group sharp_enabled_group store_param_remainders
        optimizer_cuda_graph cuda_graph_use_single_mempool cuda_graph_retain_* num_buckets
        pad_buckets_for_high_nccl_busbw suggested_communication_unit_size use_transformer_engine_op_fuser
        fused_residual_rmsnorm fused_single_qkv_rope moe_mlp_glu_interleave_size moe_single_grouped_* pad_vocab_size
        use_layer_wise_distributed_optimizer no_use_layer_wise_param_layout high_priority_a2a_comm_stream"""),
    ("goes with something that this job has not", """
        activation_offload_fraction offload_modules flash_attention_version
        moe_ffn_hidden_size moe_router_topk moe_layer_freq moe_shared_expert_intermediate_size moe_router_num_groups
        moe_router_group_topk moe_latent_size moe_router_score_function moe_router_enable_expert_bias
        moe_expert_capacity_factor
        moe_token_dispatcher_type moe_enable_deepep moe_flex_dispatcher_backend moe_router_force_load_balancing
        q_lora_rank kv_lora_rank qk_head_dim qk_pos_emb_head_dim v_head_dim mamba_state_dim mamba_head_dim
        mamba_num_groups mamba_num_heads recompute_method recompute_num_layers recompute_modules exp_avg_dtype
        microbatch_group_size_per_virtual_pipeline_stage expert_model_parallel_size parallelism.pipeline_parallel_*
        activation_checkpoint.selective_ac_option quantize.* float8.*"""),
)  # fmt: skip
"""Reason -> names and patterns of what is known to have no effect on a step as it is simulated."""

MUTE = {
    "rampup_batch_size": "one step is simulated, with the whole batch",
    "step_batch_size_schedule": "one step is simulated, with the whole batch",
    "decrease_batch_size_if_needed": "one step is simulated, with the whole batch",
    "no_fp8_wgrad": "weight gradients multiply in the format of all products here",
    "fp8_multi_head_attention": "what stands before attention writes BF16 here",
    "fp8_param_gather": "products of this precision read BF16 parameters here, and those are gathered",
    "fp8_param": "products of this precision read BF16 parameters here, and those are gathered",
    "fp4_param_gather": "products of this recipe read BF16 parameters here, and those are gathered",
    "fp4_param": "products of this recipe read BF16 parameters here, and those are gathered",
    "params_dtype": "follows from the precision", "pipeline_dtype": "follows from the precision",
    "autocast_dtype": "follows from the precision",
    "fp16": "is told as BF16, which is as wide",
    "fp32_residual_connection": "the residual stream is in BF16 here",
    "distribute_saved_activations": "kept inputs of layers are whole on each rank here",
    "moe_shared_expert_overlap": "shared experts are computed after the exchange here",
    "delay_wgrad_compute": "weight gradients stay in the backward here",
    "moe_router_padding_for_fp8": "rows of an expert are padded as its products need it",
    "moe_router_padding_for_quantization": "rows of an expert are padded as its products need it",
    "moe_router_dtype": "the gate's format is the stack's",
    "moe_pad_expert_input_to_capacity": "padding to the capacity is not computed here",
    "moe_token_drop_policy": "which tokens are dropped changes no time",
    "moe_deepep_num_sms": "SMs of the dispatcher are the stack's",
    "moe_hybridep_num_sms": "SMs of the dispatcher are the stack's",
    "moe_flex_dispatcher_num_sms": "SMs of the dispatcher are the stack's",
    "moe_extended_tp": "is gone from Megatron; --expert-tensor-parallel-size says it",
    "defer_embedding_wgrad_compute": "the head's weight gradient stays in the backward here",
    "wgrad_deferral_limit": "the head's weight gradient stays in the backward here",
    "overlap_param_gather_with_optimizer_step": "parameters are gathered after the update here",
    "overlap_p2p_communication_warmup_flush": "messages overlap alike in all phases here",
    "optimizer_offload_fraction": "all states are offloaded, or none", "offload_optimizer_states": "is not modelled",
    "export_force_local_attention": "layers of ModelOpt are Megatron Core's here",
    "enable_gpt_oss": "the model is what the other flags say",
    "min_offloaded_tensor_size": "what waits on the host is a part of all that layers keep (offload)",
    "delta_offload_bytes_across_pp_ranks": "all positions offload as much here",
    "cpu_offloading_activations": "follows from the number of layers",
    "cpu_offloading_weights": "weights stay on the device here",
    "moe_dispatch_fwd_dtype": "exchanges are in the recipe's formats here",
    "moe_combine_bwd_dtype": "exchanges are in the recipe's formats here",
    "outer_dp_sharding_strategy": "copies of shards hold whole states here",
    "moe_shared_expert_gate": "gates of shared experts are not modelled",
    "attention_output_gate": "gates of attention are not modelled",
    "variable_seq_lengths": "messages are as long as sequences here",
    "megatron_fsdp_grad_comm_dtype": "gradients are reduced in the format that states.gradients says",
    "hierarchical_context_parallel_sizes": "context parallelism has one level here",
    "use_nccl_ub": "user buffers of NCCL are not modelled", "nccl_ub": "user buffers of NCCL are not modelled",
    "fsdp_double_buffer": "buffers of FSDP are the stack's", "use_sharp": "name a fabric with SHARP instead (--fabric)",
    "ddp_num_buckets": "give bytes of a bucket in the scenario (buckets)",
    "optim.bucket_cap_mb": "give bytes of a bucket in the scenario (buckets)",
    "fp8_hybrid": "E4M3 and E5M2 take the same time", "fp8_e4m3": "E4M3 and E5M2 take the same time",
    "ddp_average_in_collective": "scaling of gradients is not a kernel here",
    "average_in_collective": "scaling of gradients is not a kernel here",
    "ddp_pad_buckets_for_high_nccl_busbw": "buckets are not padded here",
    "no_align_grad_reduce": "ranks reduce as soon as they can here",
    "no_align_param_gather": "without a pipeline there is nothing to align",
    "align_param_gather": "without a pipeline there is nothing to align",
    "keep_fp8_transpose_cache": "is as the recipe has it", "reuse_grad_buf_for_mxfp8_param_ag": "is not modelled",
    "reset_position_ids": "documents are one a sequence; say batch.lengths in the scenario",
    "reset_attention_mask": "documents are one a sequence; say batch.lengths in the scenario",
    "tp_comm_overlap_cfg": "which method overlaps each product is the stack's",
    "disable_tp_comm_overlap_ag": "overlap of the tensor group is all or nothing here",
    "disable_tp_comm_overlap_rs": "overlap of the tensor group is all or nothing here",
    "tp_comm_overlap_rs_dgrad": "overlap of the tensor group is all or nothing here",
    "disable_tp_comm_bulk_dgrad": "overlap of the tensor group is all or nothing here",
    "disable_tp_comm_bulk_wgrad": "overlap of the tensor group is all or nothing here",
    "disable_tp_comm_split_ag": "overlap of the tensor group is all or nothing here",
    "disable_tp_comm_split_rs": "overlap of the tensor group is all or nothing here",
    "no_scatter_gather_tensors_in_pipeline": "messages of a pipeline are whole or in tensor slices as sequence says",
    "use_legacy_models": "layers are Megatron Core's here", "fp16_lm_cross_entropy": "the loss is in FP32 here",
    "apply_residual_connection_post_layernorm": "norms stand before their halves here",
    "activation_func_clamp_value": "clamps are of experts", "glu_linear_offset": "offsets are not modelled",
    "openai_gelu": "is told as gelu, which takes the same time",
    "heterogeneous_layers_config_path": "all layers follow one pattern here",
    "spec": "layers are those that the other flags say",
    "mtp_use_repeated_layer": "prediction modules have their own weights here",
    "linear_attention_freq": "linear attention is not modelled",
    "experimental_attention_variant": "is not modelled; attention is what the other flags say",
    "disable_mamba_mem_eff_path": "Mamba's kernels are the stack's", "is_hybrid_model": "the pattern of layers says it",
    "hybrid_attention_ratio": "write the pattern of layers (--hybrid-layer-pattern)",
    "hybrid_mlp_ratio": "write the pattern of layers (--hybrid-layer-pattern)",
    "optimizer.early_step_in_backward": "the update comes after the steps here",
    "parallelism.context_parallel_load_balancer": "causal work is balanced over the context group here",
    "parallelism.pipeline_parallel_expert_parallel_overlap": "is part of DualPipeV here",
    "parallelism.module_fqns_per_model_part": "say placement in the scenario, layers a stage",
    "parallelism.pipeline_parallel_split_points": "say placement in the scenario, layers a stage",
    "parallelism.pipeline_parallel_schedule_csv": "a schedule of one's own is a file of sim/schedules",
    "activation_checkpoint.memory_budget": "a budget of torch.compile cannot be told",
    "activation_checkpoint.per_op_sac_force_recompute_mm_shapes_by_fqns":
        "which products are computed again cannot be told",
    "activation_checkpoint.preserve_rng_state": "states of random numbers cost nothing here",
    "activation_checkpoint.determinism_check": "costs nothing here",
    "activation_checkpoint.debug": "costs nothing here",
    "quantize.linear.float8.precompute_float8_dynamic_scale_for_fsdp": "scales of gathered weights cost nothing here",
    "quantize.linear.float8.filter_fqns": "which products are in FP8 is the stack's",
    "quantize.linear.mx.filter_fqns": "which products are in FP8 is the stack's",
    "float8.filter_fqns": "which products are in FP8 is the stack's",
    "quantize.grouped_mm.float8.fqns": "which products are in FP8 is the stack's",
    "compile.backend": "compiled means inductor here",
    "training.mixed_precision_reduce": "gradients are reduced in the format that states.gradients says",
}  # fmt: skip
"""Name -> why the scenario cannot say it, or what stands in its place."""

NEAR = 0.8
"""How alike a name must be to be offered instead (difflib)."""


def why(name: str, known: Collection[str], spell: str) -> str:
    """One line on a setting that is not in the scenario. known: names that are understood; spell: how one is written,
    for a hint."""
    if MUTE.get(name):
        return MUTE[name]
    for reason, names in IDLE:
        if any(fnmatchcase(name, pattern) for pattern in names.split()):
            return reason
    literal = {each for _, names in IDLE for each in names.split() if "*" not in each}
    near = get_close_matches(name, sorted({*known, *MUTE, *literal}), n=1, cutoff=NEAR)
    hint = f", did you mean {spell.format(near[0].replace('_', '-') if '--' in spell else near[0])}?" if near else ";"
    return f"is not known{hint} nothing is done with it"
