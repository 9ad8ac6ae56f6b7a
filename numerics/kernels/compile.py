"""Cross-compilation for Hopper without a GPU: what the compiler makes of a kernel, to assert on.

`compile_for_hopper` builds one specialisation for sm_90a and reports its PTX, SASS, registers, spills and shared
memory. Nothing is run. Under `TRITON_INTERPRET=1` Triton's own library functions are interpreted too and cannot be
compiled, so the work then goes to one worker process without that setting, kept for the next call.
"""

import atexit
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

ALIGNED = 16
"""Bytes (pointers) or the divisor (integers) that a launch specialises on: 16 bytes is the widest load of a thread."""


@dataclass(frozen=True, slots=True)
class Report:
    """One compiled kernel: sources, registers a thread, bytes of shared memory and of spilled registers a thread."""

    kernel: str
    ptx: str
    sass: str
    registers: int
    shared: int
    spills: int

    def instructions(self, opcode: str) -> int:
        """SASS instructions whose name starts with `opcode`, such as "QGMMA", "LDG.E.128" or "STL"."""
        return len(re.findall(rf"^\s*/\*[0-9a-f]{{4,}}\*/\s+(?:@!?U?P\w+\s+)?{re.escape(opcode)}", self.sass, re.M))


def compile_for_hopper(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any] | None = None,
    num_warps: int = 4,
    num_stages: int = 3,
    **options: Any,
) -> Report:
    """Compile `kernel` (decorated with triton.jit) for sm_90a.

    `signature` gives the type of every argument that is not a constexpr, in the kernel's order, as a launch would
    see it: "*bf16:16" is a pointer aligned to 16 bytes, "i32:16" an integer divisible by 16, "i32" one that is not,
    "i32:1" an integer that equals one. Raises ValueError for a missing or unknown argument, RuntimeError with the
    compiler's words when it fails.
    """
    function = _function(kernel)
    order = list(inspect.signature(function).parameters)
    constexprs = dict(constexprs or {})
    _check(function.__name__, order, signature, constexprs)
    arguments = {
        "kernel": f"{function.__module__}:{function.__name__}",
        "signature": {name: signature.get(name, "constexpr") for name in order},
        "constexprs": {name: _encode(value) for name, value in constexprs.items()},
        "options": {"num_warps": num_warps, "num_stages": num_stages, **options},
    }
    return Report(**(_ask(arguments) if _interpreted() else _compile(arguments)))


def compiler_available() -> bool:
    """Whether Triton's bundled ptxas, cuobjdump and nvdisasm are here, which `compile_for_hopper` needs."""
    try:
        return all(Path(tool).exists() for tool in (_tool("ptxas"), _tool("cuobjdump"), _tool("nvdisasm")))
    except (ImportError, RuntimeError):
        return False


def _check(name: str, order: list[str], signature: Mapping[str, str], constexprs: Mapping[str, Any]) -> None:
    unknown = sorted((set(signature) | set(constexprs)) - set(order))
    missing = [argument for argument in order if argument not in signature and argument not in constexprs]
    if unknown or missing:
        raise ValueError(f"{name}: unknown arguments {unknown}, missing arguments {missing}; it takes {order}")


def _function(kernel: Any) -> Any:
    """The plain function under triton.jit, the interpreter and autotune."""
    while not inspect.isfunction(kernel):
        kernel = kernel.fn
    return kernel


def _interpreted() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)


def _encode(value: Any) -> Any:
    import triton.language as tl

    return {"dtype": value.name} if isinstance(value, tl.dtype) else value


def _decode(value: Any) -> Any:
    import triton.language as tl

    return tl.dtype(value["dtype"]) if isinstance(value, dict) else value


def _compile(arguments: Mapping[str, Any]) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    module, name = arguments["kernel"].split(":")
    jitted = getattr(import_module(module), name)
    while not hasattr(jitted, "arg_names") or not inspect.isfunction(jitted.fn):
        jitted = jitted.fn
    kind = GluonASTSource if jitted.is_gluon() else ASTSource
    source = kind(jitted, *_specialise(arguments))
    from numerics.kernels.cluster import rewriting

    with rewriting():
        built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=arguments["options"])
    sass, registers, spills = _disassemble(built.asm["cubin"])
    report = Report(arguments["kernel"], built.asm["ptx"], sass, registers, built.metadata.shared, spills)
    return asdict(report)


def _specialise(arguments: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int], Any]]:
    """Signature, constexprs and attributes as `ASTSource` takes them, from types such as "*bf16:16"."""
    signature, attributes = {}, {}
    constexprs = {name: _decode(value) for name, value in arguments["constexprs"].items()}
    for position, (name, written) in enumerate(arguments["signature"].items()):
        kind, _, hint = written.partition(":")
        if hint == "1":
            kind, constexprs[name] = "constexpr", 1
        elif hint:
            attributes[(position,)] = [["tt.divisibility", int(hint)]]
        signature[name] = kind
    return signature, constexprs, attributes


def _tool(name: str) -> str:
    import triton

    return str(getattr(triton.knobs.nvidia, name).path)


def _disassemble(cubin: bytes) -> tuple[str, int, int]:
    """SASS, registers a thread, and stack bytes a thread: Triton's kernels have no stack but spilled registers."""
    environment = {**os.environ, "PATH": f"{Path(_tool('nvdisasm')).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_tool("cuobjdump"), "-sass", "-res-usage", file.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    text = done.stdout + done.stderr
    usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump gave no resource usage: {text[:500]}")
    return text, int(usage[1]), int(usage[2]) + int(usage[3])


@cache
def _worker() -> "subprocess.Popen[str]":
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), *(path for path in sys.path if path)]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    command = [sys.executable, "-m", "numerics.kernels.compile"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    process: subprocess.Popen[str] = subprocess.Popen(command, **pipes)  # type: ignore[call-overload]
    atexit.register(process.kill)
    return process


def _ask(arguments: Mapping[str, Any]) -> dict[str, Any]:
    process = _worker()
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(arguments) + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    answer = json.loads(line) if line else {"error": f"the compile worker ended with code {process.poll()}"}
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return dict(answer)


def _serve() -> None:
    """Answer each line of arguments with a line of report. Triton prints errors on stdout: that goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer = _compile(json.loads(line))
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
