"""Rules: shipped files name what they are for, conditions hold, and a wrong file is explained line by line."""

from pathlib import Path

import pytest

from hwmodels.document import DocumentError
from numerics.traces import rules

NAMES = {
    "torch": {
        "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)": "comm_data",
        "nvjet_tst_256x128_64x4_1x2_h_bz_coopA_NNT": "gemm_bf16",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_cublas": "gemm_bf16",
        "ampere_sgemm_128x64_tn": "gemm",
        "void flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>": "attn_fwd",
        "void flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Flash_bwd_kernel_traits<128>>": "attn_bwd",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_kernel0_0": "attn_fwd",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x128_1x1x1_kernel0_0": "attn_bwd",
        "fmha_cutlassF_bf16_aligned_64x128_rf_sm80": "attn_fwd",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>": "norm",
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>": "optimizer",
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float>>": "reduce",
        "void (anonymous namespace)::softmax_warp_forward<float, float, float, 8, false, false>": "reduce",
        "triton_poi_fused_add_mul_3": "elementwise",
        "Memcpy DtoD (Device -> Device)": "copy",
        "Memset (Device)": "elementwise",
        "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_bias_TNT": "gemm_bf16",
        "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_TNT": "gemm_bf16",
        "nvjet_sm120_tst_mma_64x64x128_3_32x32x128_tmaAB_alignCD4_bz_TNNN": "gemm_bf16",
        "nvjet_sm100_qqtst_128x256_128x6_2x1_2cta_v_bz_bias_TNT": "gemm_fp8",
        "nvjet_qqtst_112x128_128x7_2x1_v_bz_coopA_algo2_TNN": "gemm_fp8",
        "nvjet_qqhsh_128x160_128x6_2x1_v_bz_TNT": "gemm_fp8",
        "cutlass3x_sm90_tensorop_s64x128x16gemm_bf16_bf16_f32_void_bf16_128x128x64_1x1x1_0_tnn_align8": "gemm_bf16",
        "cutlass3x_sm90_tensorop_s64x256x16gemm_f16_f16_f32_void_f16_128x256x64_2x1x1_0_tnn_align8": "gemm_bf16",
        "cutlass3x_sm100_simt_sgemm_f32_f32_f32_f32_f32_64x64x16_1x1x1_3_tnn_align1": "gemm",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16, float, __nv_bfloat16>": "reduce",
        "ampere_bf16_s16816gemm_bf16_256x128_ldg8_f2f_stages_64x3_nn": "gemm_bf16",
        "void gemv2T_kernel_val<int, int, float>": "gemm",
        "Cijk_Ailk_Bjlk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT256x192x64_MI16x16x1_SN": "gemm",
        "void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<Main>>>": "attn_fwd",
        "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnBwdSm90<flash::CollectiveMain>>>": "attn_bwd",
        "void cutlass::device_kernel<flash::FlashAttnBwdPreprocess<int>>": "attn_bwd",
        "flash::FlashAttentionForwardSm100": "attn_fwd",
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128>>": "attn_fwd",
        "fmha_cutlassB_bf16_aligned_128x64_k128_sm80": "attn_bwd",
        "ncclSymDevKernel_AllReduce_RSxLD_AGxST_sum_bf16(ncclSymDevArgs)": "comm_data",
        "ncclKernel_AllGather_RING_LL_Sum_int8_t": "comm_data",
        "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)": "comm_data",
        "void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl()>": "activation",
        "at::native::detail::split_with_sizes_copy_out_contiguous_no_cast_kernel(char **)": "copy",
        "void at::native::index_elementwise_kernel<128, 4>": "permute",
        "void at::native::tensor_kernel_scan_innermost_dim<float>": "reduce",
        "void at_cuda_detail::cub::DeviceRadixSortOnesweepKernel<>": "routing",
        "triton_red_fused__log_softmax__to_copy_21": "reduce",
        "triton_red_fused_native_layer_norm_16": "norm",
        "triton_per_fused__fused_rms_norm_1": "norm",
        "triton_poi_fused_add_mul_silu_23": "swiglu",
        "triton_tem_fused_flex_attention_0": "attn_fwd",
        "triton_tem_fused_flex_attention_backward_0": "attn_bwd",
        "triton_tem_fused_mm_3": "gemm",
        "cutlass::device_kernel<cutlass::gemm::kernel::GemmUniversal<GroupProblemShape<>>>": "gemm_grouped",
    },
    "megatron": {
        "void transformer_engine::normalization::rmsnorm_fwd_tuned_kernel<Kernel_traits<>>": "norm",
        "void transformer_engine::(anonymous namespace)::block_scaled_1d_cast_transpose_kernel<true>": "quant",
        "void transformer_engine::fused_rope_forward_kernel<__nv_bfloat16>": "rope",
        "void deep_ep::internode::dispatch<false, 8, false>(int4*)": "comm_data",
        "void deep_ep::internode::notify_dispatch<false, 8>(int const*)": "comm_sync",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26": "attn_bwd",
        "void multi_tensor_apply_kernel<TensorListMetadata<4>, AdamFunctorMaster>": "optimizer",
        "_permute_kernel": "permute",
        "nvjet_tst_192x192_64x3_2x1_v_bz_coopB_NTN": "gemm_bf16",
        "void deep_ep::intranode::dispatch<(int)2, (int)768, (int)8192>(int4 *)": "comm_data",
        "void deep_ep::internode_ll::dispatch<(bool)1, (bool)1, (int)6144>(void *)": "comm_data",
        "void deep_ep::layout::get_dispatch_layout<256, 4, 8>(long const*)": "comm_sync",
        "void hybrid_ep::dispatch_kernel<hybrid_ep::INTER>": "comm_data",
        "hybrid_ep::device_sync_kernel()": "comm_sync",
        "void userbuffers_fp16_sum_inplace_gpu_rr_rs_oop<8>": "comm_data",
        "void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 2112u, 7168u, 1u>": "gemm_fp8",
        "deep_gemm::sm90_bf16_gemm_impl<>": "gemm_bf16",
        "void deep_gemm::sm90_tf32_hc_prenorm_gemm_impl<24u>": "gemm",
        "void deep_gemm::transpose_fp32<>": "scale_transpose",
        "void transformer_engine::normalization::rmsnorm_bwd_finalize_general_kernel<>": "norm",
        "void transformer_engine::swizzle_col_scaling_kernel<int4, 128, 4>": "scale_transpose",
        "void transformer_engine::fused_attn::thd_read_half_tensor_kernel<>": "copy",
        "void transformer_engine::multi_padding_kernel<16, __nv_fp8_e4m3>": "permute",
        "void transformer_engine::dispatch::mxfp8::quantize_kernel::quantize_mxfp8_kernel<>": "quant",
        "void transformer_engine::gated_kernels::cast_fp8_gated_kernel<>": "swiglu",
        "void transformer_engine::unary_kernel<8, float, &transformer_engine::gelu<float, float>>": "activation",
        "void transformer_engine::unary_kernel<8, float, nullptr, __nv_bfloat16, __nv_fp8_e4m3>": "quant",
        "transformer_engine::detail::cast_transpose_optimized_kernel": "quant",
        "void transformer_engine::hadamard_transform_kernel<>": "quant",
        "void transformer_engine::delayed_scaling_recipe::kernel_bulk<>": "quant",
        "void transformer_engine::multi_tensor_apply_kernel<TensorListMetadata<4>, AdamFunctorMaster>": "optimizer",
        "void multi_tensor_apply_kernel<TensorListMetadata<1>, L2NormFunctor<float>>": "optimizer",
        "void transformer_engine::fused_router::fused_topk_with_score_function_forward_kernel<float>": "routing",
        "setGroupedGemmWgradArguments": "misc",
        "_unpermute_kernel": "permute",
        "_make_chunk_sort_map_kernel": "permute",
        "_row_id_map_pass_1_kernel": "permute",
        "rotary_fwd_q_kernel": "rope",
        "void transformer_engine::scaled_upper_triang_masked_softmax_warp_forward<>": "reduce",
        "void cuApplyLayerNorm<float>": "norm",
        "online_softmax_kernel": "loss",
    },
    "deepseek": {
        "void cutlass::device_kernel<x::fp8_dptp128c_acc::GemmKernel>(Params)": "gemm_fp8_wgrad",
        "void cutlass::device_kernel<x::m_grouped_fp8_ptp128c::GemmKernel>(Params)": "gemm_grouped",
        "void cutlass::device_kernel<x::fp8_ptp128c::GemmKernel>(Params)": "gemm_fp8",
        "void x::ep::internode::combine<false, 8>(int4*)": "comm_data",
        "void x::ep::internode::cached_notify<false>(int)": "comm_sync",
        "void cuda::per_channel_cast_and_transpose<256, 128>(void const*)": "quant",
        "void at::native::sbtopk::gatherTopK<float>(int)": "routing",
    },
}


@pytest.mark.parametrize("which", sorted(NAMES))
def test_shipped_rules_know_their_kernels(which: str) -> None:
    found = rules.load(which)
    assert {name: found.classify(name).kind for name in NAMES[which]} == NAMES[which]


OPERATORS = {
    "aten::addmm": "gemm", "aten::linear": "wrapper", "AddmmBackward0": "wrapper", "aten::view": "misc",
    "autograd::engine::evaluate_function: AddmmBackward0": "wrapper", "FusedRmsNormBackward0": "wrapper",
    "## Call CompiledFxGraph abc ##": "wrapper", "aten::conv2d": "conv", "aten::gelu_": "activation",
    "aten::sigmoid_backward": "activation", "aten::embedding_dense_backward": "embedding",
    "c10d::allreduce_": "comm_data",
    "_C::rotary_embedding": "rope", "vllm::rocm_unquantized_gemm": "gemm", "sgl_kernel::silu_and_mul": "swiglu",
    "aten::_scaled_dot_product_flash_attention": "attn_fwd", "triton_poi_fused_addmm_gelu_3": "activation",
}  # fmt: skip


@pytest.mark.parametrize("which", rules.shipped())
def test_operators_of_the_host_go_by_their_whole_name_and_others_by_their_own(which: str) -> None:
    found = rules.load(which)
    assert {name: found.classify(name, host=True).kind for name in OPERATORS} == OPERATORS
    for name, kind in OPERATORS.items():
        assert found.classify(name, host=True).known == (kind != "wrapper"), name


# --- the function's own name ------------------------------------------------------------------------------------------

PRODUCTS = {
    "my_gemm_{}_64x64": "gemm", "_expert_matmul_bf16xmxfp4_128x128_{}": "gemm",
    "bmm_E4m3_Fp32_tile128_{}_sm100": "gemm_fp8", "_matmul_ogs_NNT_bf16xbf16xmxfp4_16x128_{}": "gemm_grouped",
    "triton_tem_fused_addmm_{}_3": "gemm", "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_{}_TNT": "gemm_bf16",
    "ampere_fp16_s16816gemm_fp16_128x64_{}_ldg8": "gemm_bf16",
    "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_{}_bf16_128x64>(Params)": "gemm_bf16",
    "void device_kernel<cutlass::gemm::GemmUniversal<MMA_64x64x32_F32E4M3E4M3_SS, Epilogue_{}>>(Params)": "gemm_fp8",
}  # fmt: skip
FUSED = (
    "swiglu",
    "swiGlu",
    "relu",
    "gelu",
    "silu_mul",
    "sigmoid",
    "tanh",
    "layer_norm",
    "softmax",
    "quantize",
    "dropout_add",
)


@pytest.mark.parametrize("fused", FUSED)
@pytest.mark.parametrize("which", rules.shipped())
def test_a_product_is_one_whatever_is_fused_into_it(which: str, fused: str) -> None:
    found = rules.load(which)
    names = {name.format(fused): kind for name, kind in PRODUCTS.items()}
    assert {name: found.classify(name).kind for name in names} == names


@pytest.mark.parametrize(
    ("own", "kind"),
    [("table_lookup_kernel", "embedding"), ("bucketize_features", ""), ("swiglu_act_kernel", "swiglu"),
     ("sgemm", "gemm"), ("relu_kernel", "activation"), ("leaky_relu", "activation"), ("layer_norm_kernel", "norm"),
     ("my_own_thing", "")],
)  # fmt: skip
@pytest.mark.parametrize(
    "around",
    ["{}", "void fbgemm_gpu::{}<int>(int*)", "void {}<4, fbgemm_gpu::float_to_hfp8(float)>(fbgemm_gpu::Tensor<float>)",
     "void grouped_gemm::cuda::{}(float*)", "attention::gelu::{}", "void x::flash::{}<softmax::Traits<int>>(gemm::P)",
     "std::enable_if<!(false), void>::type gemm::{}<int>(int)", "void (anonymous namespace)::{}<norm::T>(gelu::T)"],
)  # fmt: skip
@pytest.mark.parametrize("which", rules.shipped())
def test_namespaces_templates_and_arguments_say_nothing_of_a_function(
    which: str, around: str, own: str, kind: str
) -> None:
    named = rules.load(which).classify(around.format(own))
    assert (named.kind if named.known else "") == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::native::{}(at::It&)::{{lambda()#1}}>(int)", "{}"),
        ("void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl<at::native::{}<float>>>(int)", "{}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("functor", "expected"),
    [("silu_backward_kernel", "activation"), ("sigmoid_kernel_cuda", "activation"), ("tanh_kernel_cuda", "activation"),
     ("launch_glu_backward", "swiglu"), ("direct_copy_kernel_cuda", "copy"), ("CUDAFunctor_add", "elementwise")],
)  # fmt: skip
def test_elementwise_kernels_are_what_their_template_names(name: str, kind: str, functor: str, expected: str) -> None:
    assert rules.load("torch").classify(name.format(functor)).kind == kind.format(expected)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("triton_poi_fused_addmm_gelu_view_15", "activation"), ("triton_poi_fused_addmm_cat_1", "elementwise"),
        ("triton_red_fused_add_addmm_mul_native_layer_norm_19", "norm"),
        ("triton_per_fused_addmm_mean_pow_7", "reduce"),
        ("triton_poi_fused__scaled_dot_product_flash_attention_cat_10", "elementwise"),
    ],
)  # fmt: skip
def test_what_inductor_fuses_elementwise_is_no_product(name: str, kind: str) -> None:
    """Its names list the operators whose parts it took; of addmm that is the bias, the product runs elsewhere."""
    assert {rules.load(which).classify(name).kind for which in rules.shipped()} == {kind}


def test_what_gets_a_product_ready_or_sums_its_parts_is_none() -> None:
    found = rules.load("torch")
    for name in ("void at::cuda::detail::prepare_grouped_gemm_data<bfloat16_t>(int)", "setGroupedGemmWgradArguments"):
        assert found.classify(name).kind == "misc"
    assert found.classify("_finalize_matmul_scatter_bf16").kind == "permute"
    assert found.classify("void cublasLt::splitKreduce_kernel<32, 16>(int)").kind == "reduce"


@pytest.mark.parametrize("which", rules.shipped())
def test_a_catch_all_knows_nothing(which: str) -> None:
    found = rules.load(which)
    assert found.classify("aten::my_custom_thing", host=True) == rules.Named("misc", "", False, False, True)
    assert found.classify("aten::mm", host=True).known and not found.classify("my_thing", host=True).general


def test_a_catch_all_holds_only_where_nothing_else_does(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        "kernels: [{class: misc, match: '', general: true}, {class: norm, match: ln}]\n"
        "operators: [{class: misc, match: '^my::', general: true}, {class: rope, match: 'rope'}]\n",
    )
    assert found.classify("ln_fwd").kind == "norm" and found.classify("other").general
    assert found.classify("my::rope", host=True).kind == "rope" and found.classify("my::ln", host=True).kind == "norm"


def test_all_shipped_files_load_and_use_legal_words() -> None:
    assert rules.shipped() == ("deepseek", "megatron", "torch")
    for which in rules.shipped():
        assert len(rules.load(which).rules) > 10


def test_what_no_rule_knows_is_not_known() -> None:
    assert rules.load("torch").classify("strange_kernel") == rules.Named("misc", "", False, False)


def made(folder: Path, text: str) -> rules.Rules:
    path = folder / "own.yaml"
    path.write_text(text)
    return rules.load(path)


def test_first_match_wins_and_conditions_hold(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        """
kernels:
  - {class: norm, match: 'ln_(fwd|bwd)', op: 'norm_\\1', annotation: '^attn'}
  - {class: quant, match: 'ln_', grid: [null, 4]}
  - {class: copy, match: 'ln_', loose: true}
""",
    )
    assert found.classify("ln_fwd", "attn(F)", (1, 4, 1)) == rules.Named("norm", "norm_fwd", False, True)
    assert found.classify("ln_fwd", "mlp(F)", (1, 4, 1)).kind == "quant"
    assert found.classify("ln_fwd", "mlp(F)", (1, 5, 1)) == rules.Named("copy", "", True, True)


def test_sequences_count_and_other_files_follow(tmp_path: Path) -> None:
    found = made(
        tmp_path,
        "extends: torch\nkernels: [{class: rope, match: gemm}]\n"
        "sequences:\n  a: [norm one, routing gate x3, copy two]\n",
    )
    assert found.sequences["a"] == (
        ("norm", "one"), ("routing", "gate_00"), ("routing", "gate_01"), ("routing", "gate_02"), ("copy", "two"),
    )  # fmt: skip
    assert found.classify("sgemm").kind == "rope", "own rules come first"
    assert found.classify("softmax_warp_forward").kind == "reduce"


def test_deepseek_sequences_have_the_kernels_of_a_layer() -> None:
    """69 + 19 + 29 + 12 + 101 + 5 compute kernels of a MoE layer (sim.models.deepseek) and 10 on the other stream."""
    sizes = {phase: len(entries) for phase, entries in rules.load("deepseek").sequences.items()}
    assert sizes == {
        "attn(F)": 69, "mlp(F)": 19, "mlp(B)": 29, "mlp(W)": 12, "attn(B)": 101, "attn(W)": 5,
        "dispatch(F)": 3, "combine(F)": 2, "combine(B)": 3, "dispatch(B)": 2,
    }  # fmt: skip


def test_all_mistakes_of_a_file_are_said_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """phase: x
kernels:
  - {class: gem, match: a}
  - {class: gemm, match: '(', grid: [1]}
  - {clas: gemm, match: b}
  - {class: gemm, match: b, shape: 1}
  - {class: gemm, match: 'at::mm'}
  - {class: gemm, match: [a, '['], scope: ')'}
sequences:
  p: [nrm one, norm]
"""
    with pytest.raises(DocumentError) as found:
        made(tmp_path, text)
    lines = str(found.value).splitlines()
    says = (
        "own.yaml:1:1: phase: unknown key 'phase', did you mean 'phases'?",
        "own.yaml:3:6: kernels[0].class: unknown class 'gem', did you mean 'gemm'?",
        "own.yaml:4:19: kernels[1].match: not a regular expression",
        "own.yaml:5:5: kernels[2]",
        "own.yaml:6:29: kernels[3]: unknown key 'shape'",
        "own.yaml:7:19: kernels[4].match: a function's own name has no '::', found 'at::mm'; its namespaces",
        "own.yaml:8:19: kernels[5].match: not a regular expression",
        "own.yaml:8:36: kernels[5].scope: not a regular expression",
        "own.yaml:10:7: sequences.p[0]: unknown class 'nrm', did you mean 'norm'",
        "own.yaml:10:16: sequences.p[1]: expected 'class operation'",
    )
    assert len(lines) == len(says)
    for line, expected in zip(lines, says, strict=True):
        assert expected in line, line


def test_an_unknown_name_is_met_with_the_legal_ones() -> None:
    with pytest.raises(
        DocumentError, match=r"unknown rules 'deepsek', did you mean 'deepseek'.*legal: deepseek, megatron"
    ):
        rules.load("deepsek")


def test_a_file_without_kernels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="kernels: missing"):
        made(tmp_path, "name: empty\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("extends: own.yaml\nkernels: []\n", "own.yaml:1:1: extends: unknown rules 'own.yaml'"),
        ("kernels: []\nsequences: [a]\n", "own.yaml:2:1: sequences: a mapping, found list"),
        ("kernels: []\noperators: 5\n", "own.yaml:2:1: operators: a list of {class: ..., match: ...}"),
        ("kernels: [{class: gemm, match: []}]\n", "own.yaml:1:11: kernels[0]: a rule is {class: ..., match: ...}"),
        ("kernels: []\nshapes: 5\n", "own.yaml:2:1: shapes: a mapping, found int"),
        ("kernels: []\nsequences: {p: 5}\n", "own.yaml:2:13: sequences.p: a list is needed"),
        ("kernels: [{class: gemm, match: a, grid: 5}]\n", "kernels[0].grid: a list of whole numbers"),
    ],
)
def test_parts_of_another_form_are_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DocumentError) as found:
        made(tmp_path, text)
    assert says in str(found.value)
