// SPDX-License-Identifier: MIT
//
// A transformers model as llama.cpp wants it, and a GGUF model as transformers does: names, hyperparameters,
// the order of the rows of Q and K (gguf_architecture.h), and float32 where llama.cpp computes with nothing
// else.
#pragma once

#include <memory>

#include "trit/io.h"

namespace trit::io {

/// `source` under llama.cpp's names, with the keys of a GGUF file; null if it is one already, or if its
/// config.json names no architecture that is known. Tensors that options.names renames are left as they are.
/// options.warn hears what llama.cpp will miss. `source` and `options` must outlive the result.
std::unique_ptr<Checkpoint> with_llama_cpp_names(const Checkpoint& source, const ConvertOptions& options);

/// The inverse, for a GGUF source; null for others, and for an architecture that is not known. All of what
/// with_llama_cpp_names() did is undone, so that a model comes back bit for bit.
std::unique_ptr<Checkpoint> with_huggingface_names(const Checkpoint& source);

}  // namespace trit::io
