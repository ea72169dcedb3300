"""Kernels are told by their names, and shares of time add up to 1."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.profiling.groups import Kernel, group_of, shares

NAMES = {
    "products": (
        "nvjet_tst_128x256_64x4_2x1_v_bz_coopA_bias_TNT",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_cublas",
        "void cutlass::device_kernel<at::cuda::detail::enable_3x_kernel_for_sm9x<cutlass::gemm>>",
        "cutlass_80_tensorop_i16832gemm_s8_256x128_64x3_tn_align16",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float>",
        "sm80_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x32",
        "triton_tem_fused_addmm_3",
        "aten::addmm", "aten::mm", "aten::_int_mm", "aten::_scaled_mm", "aten::bmm",
        "aten::baddbmm", "aten::linear", "mkldnn::_linear_pointwise", "aten::mkldnn_convolution",
    ),
    "attention": (
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<64, 128, 128, 4>>",
        "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90>>",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_6_64x128x64",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(PyTorchMemEffAttention)",
        "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_softmax",
    ),
    "elementwise": (
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>",
        "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>",
        "triton_per_fused__to_copy_addmm_native_layer_norm_2",
        "triton_poi_fused_clone_linear_mul_sigmoid_5",
        "aten::native_layer_norm", "aten::gelu", "aten::mul", "aten::sigmoid",
    ),
    "copies": (
        "Memcpy DtoH (Device -> Pinned)", "Memset (Device)",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>>",
        "aten::copy_", "aten::clone", "aten::cat",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "group"), [(name, group) for group, names in NAMES.items() for name in names]
)
def test_a_kernel_is_told_by_its_name(name, group):
    assert group_of(name) == group


@given(seconds=st.lists(st.floats(1e-6, 1), min_size=1, max_size=9), whole=st.floats(1e-6, 20))
def test_shares_add_up_to_one_and_what_no_kernel_takes_is_idle(seconds, whole):
    names = [name for names in NAMES.values() for name in names]
    found = shares([Kernel(names[i], each) for i, each in enumerate(seconds)], whole)
    parts = (found.products, found.attention, found.elementwise, found.copies, found.idle)
    assert sum(parts) == pytest.approx(1)
    assert all(0 <= part <= 1 for part in parts)
    assert found.idle == pytest.approx(max(0, 1 - sum(seconds) / whole), abs=1e-9)


def test_where_no_kernel_is_seen_there_are_no_shares():
    assert shares([], 1) is None
