"""Published kernels as tables have them: casts out, short sequences and launch-bound kernels aside."""

import csv
from pathlib import Path

import pytest

from hwmodels.op import Attention
from hwmodels.refused import Refused
from numerics.tables import published
from numerics.tables.published import Card

HEADS = {
    "gemm.csv": "gpu,precision,m,n,k,us,us_other,us_sustained,us_quant,src",
    "gemm_other.csv": "gpu,precision,m,n,k,us,util,lib,src",
    "gemm_backward.csv": "gpu,kind,groups,tokens,n_out,k_in,fprop_us,dgrad_us,wgrad_acc_fp32_us",
    "attention.csv": "gpu,direction,heads,kv_heads,dim_qk,dim_v,batch,seq,causal,us,src",
    "memory.csv": "gpu,op,direction,impl,rows,cols,dtype,us,gbs,src,hbm_frac,flag",
    "published.csv": "gpu,op,shape,value,unit,src",
    "sources.csv": "src,gpu,precision,framework,version,kernel_source,device,path,commit,licence",
}
B200 = Card(("b200",), "B200")


def folder(path: Path, **rows: list[str]) -> Path:
    """A folder with these lines, by file without its ending."""
    for name, head in HEADS.items():
        (path / name).write_text("\n".join([head, *rows.get(name.removesuffix(".csv"), [])]) + "\n")
    return path


def test_a_cast_is_no_part_of_a_product(tmp_path: Path) -> None:
    gemm = ["B200,fp8,1024,4096,512,30.0,,,12.5,a", "B200,fp8,128,4096,512,9.0,,,2.5,a", "A100,fp8,1024,1,1,1,,,1,a"]
    timed, sources = published.products(published.lines(folder(tmp_path, gemm=gemm)), B200, "fp8")
    assert timed.us.tolist() == [17.5] and sources == {"a"}
    assert timed.size.tolist() == [1024 * 512 + 4096 * 512 + 2 * 1024 * 4096]
    bf16, _ = published.products(published.lines(tmp_path), B200, "bf16")
    assert bf16.count == 0


def test_metered_rows_are_those_that_have_a_time_and_lose_their_casts(tmp_path: Path) -> None:
    gemm = ["B200,bf16,1024,512,512,10,,12,,a", "B200,bf16,2048,512,512,10,,,,a", "B200,bf16,64,512,512,10,,12,,a",
            "B200,fp8,1024,512,512,10,,12,3,a"]  # fmt: skip
    rows = published.lines(folder(tmp_path, gemm=gemm))
    plain, cast = (published.metered(rows, "B200", precision) for precision in ("bf16", "fp8"))
    assert (plain.m.tolist(), plain.us.tolist(), cast.us.tolist()) == ([1024], [12.0], [9.0])
    assert published.metered(rows, "GB200", "bf16").count == 0


def test_attention_is_causal_and_has_its_groups(tmp_path: Path) -> None:
    attention = ["B200,fwd,64,8,128,128,2,8192,1,500,t", "B200,bwd,16,16,192,128,1,4096,1,900,s",
                 "B200,fwd,16,16,64,64,1,4096,0,9,t"]  # fmt: skip
    one, two = published.attentions(published.lines(folder(tmp_path, attention=attention)), "B200")
    assert one.op == Attention("forward", 2, 64, 8192, 128, 128, kv_heads=8) and one.source == "t"
    assert two.op == Attention("backward", 1, 16, 4096, 192, 128) and two.us == 900.0


def test_streams_are_no_launches_and_no_cache(tmp_path: Path) -> None:
    line = "B200,cast_fp8,fwd,trtllm 1,8192,4096,bf16,20.0,,q,0.5,"
    memory = [line, line + "L2", line + "host", line.replace("fwd", "bwd")]
    (one,) = published.streams(published.lines(folder(tmp_path, memory=memory)), B200)
    assert one.size == pytest.approx(0.5 * 8e12 * 20e-6) and one.rows == 8192 * 4096


def test_squares_are_read_from_rates(tmp_path: Path) -> None:
    rows = published.lines(folder(tmp_path, published=["MI300X,gemm fp8,m1024 n2048 k4096,1000,TFLOP/s,z"]))
    square = published.squares(rows, "MI300X", "fp8")
    assert square.us.tolist() == pytest.approx([2 * 1024 * 2048 * 4096 / 1000e12 * 1e6])


def test_sources_say_version_and_licence(tmp_path: Path) -> None:
    rows = published.lines(folder(tmp_path, sources=["a,B200,bf16,sglang,0.5,linear,dev,x/y,0123,Apache-2.0"]))
    assert published.sources(rows, {"a"}) == ["a: sglang, 0.5, linear, x/y, 0123, Apache-2.0"]


def test_a_folder_that_lacks_a_table_is_refused(tmp_path: Path) -> None:
    (folder(tmp_path) / "gemm.csv").unlink()
    with pytest.raises(Refused, match=r"has no gemm\.csv"):
        published.lines(tmp_path)
    assert list(csv.reader([HEADS["gemm.csv"]]))
