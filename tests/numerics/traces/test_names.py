"""Names of kernels: by hand, against c++filt on mangled ones, and without end on what is no name."""

import shutil
import subprocess
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numerics.traces.names import Function, function

MANGLED = (
    "_ZN7cutlass13device_kernelIN2at4cuda6detail25enable_3x_kernel_for_sm9xINS_4gemm6kernel13GemmUniversalINS5_17Grou"
    "pProblemShapeIN4cute5tupleIJiiiEEEEENS5_10collective13CollectiveMmaINS5_39MainloopSm90ArrayTmaGmmaWarpSpecialize"
    "dILi4ENSA_IJNS9_1CILi2EEENSG_ILi1EEESI_EEENS5_43KernelPtrArrayTmaWarpSpecializedCooperativeEEENSA_IJNSG_ILi128EE"
    "ENSG_ILi256EEENSG_ILi64EEEEEENS_10bfloat16_tEPNSA_IJlSI_NSG_ILi0EEEEEESQ_ST_NS9_8TiledMMAINS9_8MMA_AtomIJNS9_4SM"
    "904GMMA28MMA_64x256x16_F32BF16BF16_SSILNSX_5MajorE0ELSZ_0ELNSX_7ScaleInE1ELS10_1EEEEEENS9_6LayoutISJ_NSA_IJSI_SR"
    "_SR_EEEEENSA_IJNS9_10UnderscoreES16_S16_EEEEENS9_13SM90_TMA_LOADENS9_14ComposedLayoutINS9_7SwizzleILi3ELi4ELi3EE"
    "ENS9_18smem_ptr_flag_bitsILi16EEENS13_INSA_IJNSG_ILi8EEESO_EEENSA_IJSO_SI_EEEEEEEvNS9_8identityENS9_23SM90_TMA_L"
    "OAD_MULTICASTES1J_vS1K_EENS_8epilogue10collective18CollectiveEpilogueINS1N_30Sm90PtrArrayTmaWarpSpecializedILi4E"
    "Li2ELi16ELb0ELb0ELi2EEEJSP_NSA_IJSM_NSG_ILi32EEEEEEvST_SQ_ST_NS1N_6fusion15FusionCallbacksIS1R_NS1U_17LinearComb"
    "inationISQ_fSQ_fLNS_15FloatRoundStyleE2EEESP_S1T_JEEES19_NS1A_INS1B_ILi2ELi4ELi3EEES1E_NS13_INSA_IJS1F_S1S_EEENS"
    "A_IJS1S_SI_EEEEEEENS9_17SM75_U32x4_LDSM_NENS9_14SM90_TMA_STOREES24_NS9_17SM90_U32x4_STSM_NENS9_9Copy_AtomIJS27_N"
    "S_6half_tEEEEvEEEvvEEEEEEvNT_6ParamsE",
    "_Z14my_gemm_kernelfPf", "_ZN2at6native13reduce_kernelILi512ELi1EfEEvT1_", "_Z4scanIfEvPT_i", "_ZN4cuda6aux_fiEPKl",
    "_ZN5flash11FlashAttnFwIN3foo3BarILb0ELin5EEEEEvv", "_ZL13static_kernelPiS_",
    "_ZN12_GLOBAL__N_120elementwise_with_idxIlZN2at6native6arangeERKN3c106ScalarEEUllE_EEviT0_",
)  # fmt: skip
"""The first as torch.profiler wrote it for an H200."""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, Sum<c10::BFloat16> > >(int)",
         ("reduce_kernel", "at::native", "ReduceOp float Sum BFloat16")),
        ("void at::native::vectorized_elementwise_kernel<8, at::native::GeluCUDAKernelImpl(at::TensorIteratorBase&, "
         "at::native::GeluType)::{lambda()#2}::operator()() const::{lambda(c10::Half)#1}, std::array<char*, 2ul> >(i)",
         ("vectorized_elementwise_kernel", "at::native", "GeluCUDAKernelImpl array char")),
        ("void (anonymous namespace)::softmax_warp<float, false>(float*, float const*)",
         ("softmax_warp", "anonymous", "float false")),
        ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<Main> > >(Params)",
         ("FlashAttnFwdSm90", "flash", "Main")),
        ("void ck_tile::kentry<128, 1, ck_tile::FmhaFwdKernel<X> >(X)", ("FmhaFwdKernel", "ck_tile", "X")),
        ("void cutlass::Kernel2<cutlass_80_gemm_bf16>(cutlass_80_gemm_bf16::Params)", ("cutlass_80_gemm_bf16", "", "")),
        ("void te::unary_kernel<8, float, &(float te::gelu<float, float>(float, te::Empty const&))>(int)",
         ("unary_kernel", "te", "float gelu float float")),
        ("void x::dispatch<(int)2, (bool)1, 16>(int4 *)", ("dispatch", "x", "")),
        ("void y::pick<x::scatter<true>::operator()<Add>(at::It&)::{lambda(int)#1}>(int)",
         ("pick", "y", "scatter true Add")),
        ("std::enable_if<!(4 > 3), void>::type internal::gemvx::kernel<int>(i)", ("kernel", "internal::gemvx", "int")),
        ("foo::bar(int) [clone .kd]", ("bar", "foo", "")), ("cuda::fill(long*, int)", ("fill", "cuda", "")),
        ("Memcpy DtoD (Device -> Device)", ("Memcpy DtoD", "", "")), ("Memset (Device)", ("Memset", "", "")),
        ("Cijk_Ailk_Bjlk_BBS_BH_MT256x192x64", ("Cijk_Ailk_Bjlk_BBS_BH_MT256x192x64", "", "")),
        ("triton_poi_fused_add_mul_3", ("triton_poi_fused_add_mul_3", "", "")), ("aten::mm", ("mm", "aten", "")),
        ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
         ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", "", "")),
        ("void a::cut_short<4, b::C<d::E, f::G(", ("cut_short", "a", "C E G")),
        ("", ("", "", "")), ("<<>>", ("<<>>", "", "")),
    ],
)  # fmt: skip
def test_parts_of_names(name: str, parts: tuple[str, str, str]) -> None:
    assert function(name) == Function(*parts)


def test_mangled_names_have_the_same_parts() -> None:
    """Namespaces and arguments that a substitution stands for are left out of the mangled form's parts."""
    assert [function(name).own for name in MANGLED] == [
        "GemmUniversal", "my_gemm_kernel", "reduce_kernel", "scan", "aux_fi", "FlashAttnFw", "static_kernel",
        "elementwise_with_idx",
    ]  # fmt: skip
    first = function(MANGLED[0])
    assert first.scope == "gemm::kernel" and first.inside.split()[:3] == ["GroupProblemShape", "tuple", "CollectiveMma"]
    assert "MMA_64x256x16_F32BF16BF16_SS" in first.inside.split() and "bfloat16_t" in first.inside.split()
    assert function(MANGLED[-1]).inside == "arange"


@pytest.mark.skipif(not shutil.which("c++filt"), reason="no c++filt here")
@pytest.mark.parametrize("name", MANGLED)
def test_binutils_reads_them_alike(name: str) -> None:
    printed = subprocess.run(["c++filt", "-r", name], capture_output=True, text=True, check=True).stdout.strip()
    assert printed != name, "a mangled name"
    ours, theirs = function(name), function(printed)
    assert ours.own == theirs.own
    assert set(ours.inside.split()) <= set(theirs.inside.split()), "what substitutions repeat is said once"


@given(st.text(alphabet="<>(){}:,&* _aN1EIJLSZ'#\x01\x02", max_size=60) | st.text(max_size=40))
def test_any_text_is_read(text: str) -> None:
    for name in (text, f"_Z{text}", f"_ZN{text}", f"void {text}"):
        found = function(name)
        assert all(isinstance(part, str) for part in found)


@pytest.mark.parametrize(
    "text",
    [
        "<" * 100_000,
        "a<" * 50_000,
        "_Z" + "N1aI" * 30_000,
        "_Z" + "9" * 9000,
        "a::" * 90_000,
        "(" * 70_000 + ")" * 70_000,
    ],
)
def test_names_without_end_take_no_time_without_end(text: str) -> None:
    begin = time.process_time()
    function(text)
    assert time.process_time() - begin < 2
