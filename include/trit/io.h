// SPDX-License-Identifier: MIT
//
// Models in the files of other projects: look at them, convert them, compare them.
//
//   auto model = trit::io::open_checkpoint("bitnet-b1.58-2B-4T");          // a folder of transformers
//   trit::io::convert(*model, "model.gguf", {.to = trit::io::Format::gguf, .block_format = "tq1_0"});
//
// docs/formats.md draws every format and says what is lost in it. Readers map their files and read headers
// only; data are read when they are asked for, a few rows at a time. Readers trust nothing in a file:
// anything malformed is a trit::Error that says what was found and what would be accepted, and no memory is
// allocated for a count before the file is known to be long enough for it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trit/export.h"
#include "trit/format.h"

TRIT_EXPORT_BEGIN

namespace trit::io {

enum class Format : std::uint8_t {
  trit,         // this library's packed form (format.h) in a safetensors file
  huggingface,  // packed BitNet of transformers: a folder with config.json, or a file beside one
  gguf,         // version 3
  torchao,      // packed int8 tensors in a safetensors file
  safetensors,  // nothing packed
  memory        // MemoryCheckpoint
};
/// "trit", "hf", "gguf", "torchao", "safetensors", "memory".
std::string_view name_of(Format format);

enum class TensorKind : std::uint8_t {
  ternary,   // [N, K] with one scale, one per row, or one per group of inputs of a row: W = t * scale
  floating,  // F64, F32, F16, BF16
  other,     // integers, bool, complex numbers, floats of at most 8 bits: only copied
  blocks     // quantised blocks of ggml that are not decoded (Q4_K, ...): GGUF copies them to GGUF
};

/// One tensor of a checkpoint. Views refer to the checkpoint.
struct TensorInfo {
  std::string_view name;  // in this library's terms: "<layer>.weight", "<layer>.norm.weight", "<layer>.bias"
  TensorKind kind = TensorKind::other;
  /// The element type, as safetensors names it ("F32", "U8", ...). For a ternary matrix, its form in the
  /// file: "rows-2bit", "bitnet-packed", "bitnet-values", "torchao-packed", "TQ1_0", "TQ2_0", "Q2_0", "PQ2_0",
  /// "PTQ1_0", "I2_S", "float-values" (ternary_values()), or "float" (made ternary while it is read). For
  /// blocks, ggml's name ("Q4_K", ...).
  std::string_view type;
  std::span<const std::int64_t> shape;  // outermost first; unpacked, so [out_features, in_features]
  std::uint64_t stored_bytes = 0;       // in the file, including a ternary matrix's scales
  std::uint64_t offset = 0;             // of the data in its file
  std::size_t index = 0;                // used by the checkpoint alone
  /// The shape in the file of a ternary tensor with more than two dimensions, a stack of matrices (experts).
  /// `shape` is then [experts * N, K]. Empty for a matrix.
  std::span<const std::int64_t> stack = {};

  std::span<const std::int64_t> shape_in_file() const { return stack.empty() ? shape : stack; }
};

/// Key and value (u32 type, then the value's bytes) of a GGUF file.
struct GgufPair {
  std::string_view key;
  std::span<const std::byte> value;
};

using Metadata = std::map<std::string, std::string, std::less<>>;

/// A model in a file, or one that is computed from another. Immutable; several threads may read at once.
class Checkpoint {
 public:
  virtual ~Checkpoint() = default;
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  Format format() const { return format_; }
  const std::filesystem::path& path() const { return path_; }
  /// For people: "GGUF version 3, architecture bitnet".
  const std::string& description() const { return description_; }
  /// Ordered by name.
  std::span<const TensorInfo> tensors() const { return tensors_; }
  /// The tensor with this name, or null.
  const TensorInfo* find(std::string_view name) const;
  /// Text that travels with the model: "trit.model", "huggingface.config", ...
  const Metadata& metadata() const { return metadata_; }
  /// Of the files that hold the tensors, all parts or shards of a model together; 0 for one in memory.
  std::uint64_t file_bytes() const { return file_bytes_; }
  /// The pairs of a GGUF file, in the file's order; empty for other formats.
  std::span<const GgufPair> gguf_pairs() const { return gguf_pairs_; }

  /// Inputs of a row of a ternary matrix that share a weight scale, a multiple of 32; 0 if it has one scale, or
  /// one per row. May read the whole matrix: in GGUF every block has a scale.
  virtual std::int64_t group(const TensorInfo&) const { return 0; }
  /// The weight scale of a ternary matrix, [1] or [N], or [N, groups_of(K, group())] where a row has groups:
  /// finite and positive, W = t * scale whatever the file's convention. May read the whole matrix; an Error
  /// names the row and the block of a scale that is not finite. Negative scales of blocks come positive, and
  /// their codes negated.
  virtual std::vector<float> scale(const TensorInfo& tensor) const = 0;
  /// The scales [rows, groups_of(K, group())] of `rows` rows of a ternary matrix with groups, a few rows at a
  /// time: those of a large matrix are many.
  virtual void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                                 std::span<float> scales) const;
  /// `rows` rows from `first_row` of a ternary matrix, in the stored form: codes [rows, packed_row_bytes(K)].
  /// An Error names row and column of bits that are not a ternary code.
  virtual void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                          std::span<std::uint8_t> codes) const = 0;
  /// The bytes of elements of a floating or other tensor (row-major, little endian) from element `first`,
  /// as many as `bytes` holds. `first` is a multiple of 8 for elements below 8 bits. For blocks, and for a
  /// ternary tensor of a GGUF file, `first` counts bytes.
  virtual void read_elements(const TensorInfo& tensor, std::int64_t first,
                             std::span<std::byte> bytes) const = 0;
  /// The same of a floating tensor as float32: F16 and BF16 exactly, F64 rounded.
  void read_floats(const TensorInfo& tensor, std::int64_t first, std::span<float> values) const;
  /// Frees the memory that reading this tensor took: the pages of a mapped file count as the process's.
  virtual void release(const TensorInfo&) const {}

 protected:
  Checkpoint() = default;
  /// Takes all but the tensors from `source`, which this one is another view of.
  void describe_as(const Checkpoint& source);
  /// Sorts tensors_ by name; Error if two have the same.
  void sort_tensors();

  Format format_ = Format::safetensors;
  std::filesystem::path path_;
  std::string description_;
  std::uint64_t file_bytes_ = 0;
  std::vector<TensorInfo> tensors_;
  Metadata metadata_;
  std::vector<GgufPair> gguf_pairs_;
};

/// The meaning of weight_scale in packed layers of transformers: W = t * scale, or W = t / scale.
enum class ScaleConvention : std::uint8_t { multiply, divide };

struct OpenOptions {
  /// For packed transformers tensors without a config.json that says it (`--scale-convention`). Error if
  /// there is one that says the opposite, unless `config_wins`.
  std::optional<ScaleConvention> scale_convention = {};
  bool config_wins = false;
  /// GGUF, types with two meanings (`--input-type`). "q2_0" or "pq2_0": what type 42 holds in a file whose
  /// offsets fit both. "ptq1_0": type 143 is PTQ1_0 in a file without keys "prism.*".
  std::string block_format = {};
};

/// The format of a file or folder by its content, never `memory`. Throws Error for anything else.
Format detect_format(const std::filesystem::path& path);
/// Opens a file, or a folder of transformers. The content decides what format it is.
std::unique_ptr<Checkpoint> open_checkpoint(const std::filesystem::path& path,
                                            const OpenOptions& options = {});

/// A model in memory, to be written by convert().
class MemoryCheckpoint final : public Checkpoint {
 public:
  MemoryCheckpoint();
  ~MemoryCheckpoint() override;
  /// Throws Error unless check() accepts the matrix; the name must be new.
  void add(std::string name, TernaryMatrix matrix);
  /// `type` is a dtype of safetensors; bytes as its elements lie there.
  void add(std::string name, std::string type, std::vector<std::int64_t> shape, std::vector<std::byte> bytes);
  void add(std::string name, std::vector<std::int64_t> shape, std::span<const float> values);
  void set_metadata(std::string key, std::string value);

  std::int64_t group(const TensorInfo& tensor) const override;
  std::vector<float> scale(const TensorInfo& tensor) const override;
  void read_group_scales(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                         std::span<float> scales) const override;
  void read_codes(const TensorInfo& tensor, std::int64_t first_row, std::int64_t rows,
                  std::span<std::uint8_t> codes) const override;
  void read_elements(const TensorInfo& tensor, std::int64_t first, std::span<std::byte> bytes) const override;

 private:
  struct Stored;
  TensorInfo& insert(std::unique_ptr<Stored> stored);
  std::vector<std::unique_ptr<Stored>> stored_;
};

/// `source` with the float matrices that `filter` accepts (all if empty) made ternary by absmean (quantize.h)
/// while they are read. `source` must outlive the result. Reading throws Error on a NaN or an infinity.
std::unique_ptr<Checkpoint> ternarized(const Checkpoint& source, ScaleGranularity granularity,
                                       const std::function<bool(std::string_view name)>& filter = {});

/// `source` with float matrices that hold ternary values, exactly, read as ternary ones: in every group of
/// inputs of a row the values are -a, 0 and +a for an a of its own. Such "unpacked" models are published for
/// programs without ternary kernels. With `group` 0 the largest of 32, 64, 128, ... that fits a matrix is its
/// group, or a scale per row or for all of it if that fits. Takes the weights of linear layers, and other float
/// matrices where they are ternary so; `source` is read once for that, and must outlive the result. Throws
/// Error, naming tensor, row and columns of the first group that is not ternary, for a weight of a linear
/// layer that is not ternary, for a NaN or an infinity in one, and for a `group` that is not a multiple of 32.
std::unique_ptr<Checkpoint> ternary_values(const Checkpoint& source, std::int64_t group = 0);

/// Weights that a Hadamard rotation was folded into (docs/formats.md, "Rotated weights"): a matrix is stored as
/// W S H, so that its layer computes with x' = H (s * x) in place of x, block by block of the inputs.
struct Rotation {
  std::int64_t block = 0;  // 512, 1024, 2048 or 4096
  /// s by number of inputs, each +1 or -1; empty: all are +1.
  std::map<std::int64_t, std::vector<std::int8_t>> signs;
  std::vector<std::string> weights;   // matrices in front of which x is rotated
  std::vector<std::string> look_ups;  // embedding tables of rotated rows: after the look-up h = s * (H z)
  bool grouped_v_heads = false;       // qwen35's linear attention: the order of its value heads
};

/// Metadata key of a model with rotated weights: the rotation as JSON text with the keys of a hadamard.json.
inline constexpr std::string_view kRotationKey = "trit.hadamard";

/// The rotation that the metadata of a model describe, or nothing. Throws Error, starting with `what` and naming
/// the key, for a value that is missing or wrong, and for an unknown key.
std::optional<Rotation> rotation_of(const Metadata& metadata, const std::string& what);
/// For programs that compute with a model and do not apply the rotation: throws Error, starting with `what`, if
/// its weights are rotated. Without the rotation they would give fluent nonsense.
void refuse_rotation(const Metadata& metadata, const std::string& what);

/// Which floating tensors of a model are the weights of linear layers that BitNet makes ternary,
/// "<layer>.weight" [N, K]. The config.json that the model carries decides (modules_to_not_convert), and so
/// do the names that PyTorch, transformers and llama.cpp use: embeddings, lm_head, norms and routers are
/// not.
struct LinearWeights {
  /// Every other floating tensor, and the reason: "an embedding", "3 dimensions".
  std::map<std::string, std::string, std::less<>> why_not;
  bool bitnet = false;         // config.json says that the model was trained so
  std::string config_problem;  // why the config.json that the model carries was not used; else empty
};
/// Throws Error for an entry of modules_to_not_convert whose matching could take exponential time.
LinearWeights find_linear_weights(const Checkpoint& source);

/// New names for tensors. A rule is a regular expression and a replacement with $1..$9; the first rule
/// whose expression matches the whole name applies. A rule without a replacement leaves the tensor out, and
/// a tensor without a rule keeps its name.
class NameMap {
 public:
  NameMap();
  ~NameMap();
  NameMap(NameMap&&) noexcept;
  NameMap& operator=(NameMap&&) noexcept;
  /// From JSON text: {"model\\.layers\\.([0-9]+)\\.mlp\\.up_proj\\.(.*)": "blk.$1.ffn_up.$2", "lm_head.*":
  /// null}. `what` starts error messages.
  static NameMap parse(std::string_view json, const std::string& what);
  static NameMap load(const std::filesystem::path& path);

  bool empty() const;
  /// Nothing if the tensor is left out.
  std::optional<std::string> apply(std::string_view name) const;

 private:
  struct Rule;
  std::vector<Rule> rules_;
};

struct ConvertOptions {
  Format to = Format::trit;  // trit, huggingface, gguf, or safetensors (ternary matrices as floats)
  /// GGUF: "tq1_0", "tq2_0", "q2_0", "pq2_0" or "ptq1_0", and Error if there is no ternary matrix to write so.
  /// If empty: "tq2_0" for those that there are; "pq2_0" where one has groups of 128, "q2_0" where one has
  /// smaller ones.
  std::string block_format = {};
  /// Hugging Face: multiply writes linear_class "autobitlinear", divide "bitlinear". If not set: the class
  /// of the config.json that the model carries, or multiply.
  std::optional<ScaleConvention> scale_convention = {};
  /// Hugging Face: weights are cut into files of at most this many bytes, whole tensors each; 0 writes one.
  std::uint64_t shard_bytes = 0;
  /// Hugging Face: text of the config.json to start from. If empty, the one that the model carries.
  std::string base_config = {};
  /// GGUF: general.architecture. If empty, the source's, or "trit".
  std::string architecture = {};
  NameMap names = {};
  /// Called as work goes on; an exception from it ends the conversion, and nothing is left behind.
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress = {};
  /// Called, before anything is written, with a sentence for everything that the output lacks, or holds less
  /// exactly than its format's rounding (docs/formats.md).
  std::function<void(const std::string& text)> warn = {};
};

/// Checks, before the work starts, that `out` can be written. Throws the Error that writing it would throw:
/// no such folder, no permission, a device, or for Format::huggingface a folder that is not empty.
void check_output(const std::filesystem::path& out, Format to = Format::trit);

/// What was written: fewer tensors than the source has where `names` leaves some out. A ternary matrix counts
/// as one, whatever the format makes of its scale.
struct Converted {
  std::size_t tensors = 0;
  std::size_t ternary = 0;  // of them
};

/// Writes `source` as a file (trit, gguf, safetensors) or a new folder (hf). Atomic: `out` is unchanged or complete.
/// Deterministic: the same tensors and options give the same bytes. Needs a few megabytes of memory besides
/// mapped files. A model of transformers gets llama.cpp's names and keys in a GGUF file if its architecture
/// is known, and its own names again when it is converted back (docs/formats.md).
///
/// Throws Error for a tensor that the format cannot hold, naming it and the formats that can: rows that are
/// not a multiple of the block or scales that differ within one (gguf), a number of rows that is not a multiple
/// of 4 or a scale per row or group (hf), scales beyond float16 (gguf), element types that the format lacks,
/// blocks that are not decoded (all but gguf).
Converted convert(const Checkpoint& source, const std::filesystem::path& out, const ConvertOptions& options);

/// One tensor that differs between two checkpoints.
struct Difference {
  std::string name;
  /// In words: "only in the first", "12 of 4096 codes; -1 against 0 at [3, 17]", "scale: 0.5 and 0.25",
  /// "2 of 64 elements, by 0.5 at most; NaN against 2 at [5]", ...
  std::string what;
};
struct DiffOptions {
  /// Relative differences of scales and of finite floating elements up to this are ignored.
  double tolerance = 0;
  std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)> progress = {};
};
/// Tensors whose presence, kind, shape, codes, scale or elements differ. Floating tensors are compared by
/// value, whatever their types: -0 equals 0, NaN equals NaN, and an infinity equals only itself, whatever the
/// tolerance. Scales of rows of zeros have no effect and are not compared. Other tensors are compared by type
/// and bytes.
std::vector<Difference> diff(const Checkpoint& a, const Checkpoint& b, const DiffOptions& options = {});

/// How many codes of a ternary matrix are -1, 0 and +1.
struct CodeCounts {
  std::int64_t minus = 0, zero = 0, plus = 0;
};
CodeCounts count_codes(const Checkpoint& checkpoint, const TensorInfo& tensor);

}  // namespace trit::io

TRIT_EXPORT_END
