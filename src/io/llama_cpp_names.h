// SPDX-License-Identifier: MIT
//
// Converts a model of transformers to llama.cpp's conventions and back: names, hyperparameters, the order
// of the rows of Q and K (gguf_architecture.h), and float32 where llama.cpp supports nothing else.
#pragma once

#include <memory>

#include "trit/io.h"

namespace trit::io {

/// `source` with llama.cpp's names and the keys of a GGUF file; null if it is a GGUF file already, or if
/// its config.json names no known architecture. Tensors that options.names renames keep their names here.
/// options.warn is called for everything that llama.cpp will miss. `source` and `options` must outlive the
/// result.
std::unique_ptr<Checkpoint> with_llama_cpp_names(const Checkpoint& source, const ConvertOptions& options);

/// The inverse, for a GGUF source; null for other sources and for an unknown architecture. It undoes
/// everything that with_llama_cpp_names() did: a model comes back bit-identical.
std::unique_ptr<Checkpoint> with_huggingface_names(const Checkpoint& source);

}  // namespace trit::io
