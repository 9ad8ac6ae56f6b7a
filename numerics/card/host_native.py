"""What C++ extensions do around an operation besides launching it, compiled and timed by themselves.

TransformerEngine's extension makes tensors over parts of one buffer, reads the fields of Python's objects by their
names, and reads which way a quantizer goes; how often is in `sim.models.stacks.megatron.host`. Compiled by
`torch.utils.cpp_extension` (a C++ compiler and ninja, half a minute). On a CPU's tensors: what a driver is asked about
a pointer, which a GPU's tensor does too, is not in it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from numerics.card.host_python import FIELDS, Quantizer, Stored

Each = Callable[[Callable[[], Any]], float]
MANY = 33
SOURCE = r"""
#include <torch/extension.h>
#include <memory>
#include <string>
#include <vector>

// Parts of 64 bytes of a buffer as tensors, each of which keeps the buffer.
std::vector<at::Tensor> parts(const at::Tensor& buffer, int64_t count) {
  auto kept = std::make_shared<at::Tensor>(buffer);
  std::vector<at::Tensor> made;
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<int64_t> shape{8, 8};
    void* start = kept->data_ptr<uint8_t>() + 64 * i;
    made.push_back(at::from_blob(start, shape, [kept](void*) {}, at::device(at::kCPU).dtype(at::kByte)));
  }
  return made;
}

struct Known {
  std::vector<void*> starts;
  std::vector<std::vector<size_t>> shapes;
  int64_t format;
  bool ordered;
};

// Fields of quantised tensors: two tensors of each side that is there, a format and an order.
int64_t fields(const std::vector<py::handle>& tensors) {
  std::vector<Known> all;
  for (const auto& tensor : tensors) {
    Known known;
    known.ordered = tensor.attr("_ordered").cast<bool>();
    known.format = tensor.attr("_format").cast<int64_t>();
    for (const std::string side : {"row", "column"}) {
      const std::string data = "_" + side + "s", scales = "_" + side + "_scales";
      if (tensor.attr(data.c_str()).is_none()) continue;
      for (const auto& name : {data, scales}) {
        const auto held = tensor.attr(name.c_str()).cast<at::Tensor>();
        std::vector<size_t> shape;
        for (const auto size : held.sizes()) shape.push_back(size);
        known.starts.push_back(held.data_ptr());
        known.shapes.push_back(shape);
      }
    }
    all.push_back(std::move(known));
  }
  return all.size();
}

struct Way {
  bool rows, columns, internal, optimize;
  int64_t format;
  virtual ~Way() = default;
};

// Which way quantizers go.
int64_t ways(const std::vector<py::handle>& quantizers) {
  std::vector<std::unique_ptr<Way>> all;
  for (const auto& each : quantizers) {
    auto way = std::make_unique<Way>();
    way->rows = each.attr("rows").cast<bool>();
    way->columns = each.attr("columns").cast<bool>();
    way->internal = each.attr("internal").cast<bool>();
    way->optimize = each.attr("optimize").cast<bool>();
    way->format = each.attr("format").cast<int64_t>();
    all.push_back(std::move(way));
  }
  return all.size();
}
"""


def native(each: Each) -> Iterator[tuple[str, float]]:
    """Names and microseconds of one more of each: a tensor over a part of a buffer and its object in Python; a
    quantised tensor read; a quantizer read."""
    from torch.utils import cpp_extension

    library = cpp_extension.load_inline(  # type: ignore[no-untyped-call]
        "trainyard_host", SOURCE, functions=["parts", "fields", "ways"], extra_cflags=["-O3"]
    )
    buffer = torch.empty(64 * MANY, dtype=torch.uint8)
    quantizers, tensors = [Quantizer() for _ in range(MANY)], []
    for quantizer in quantizers:
        held = Stored(quantizer, *[torch.empty(8, 8) for _ in FIELDS])
        held._ordered, held._format = True, 0  # type: ignore[attr-defined]
        tensors.append(held)
    calls: dict[str, Callable[[int], Any]] = {
        "part": lambda count: library.parts(buffer, count),
        "read": lambda count: library.fields(tensors[:count]),
        "way": lambda count: library.ways(quantizers[:count]),
    }
    for name, call in calls.items():
        many, one = (each(lambda call=call, count=count: call(count)) for count in (MANY, 1))  # type: ignore[misc]
        yield name, (many - one) / (MANY - 1)
