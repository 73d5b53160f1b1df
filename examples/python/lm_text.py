# SPDX-License-Identifier: MIT
"""Text for train_lm.py: files to tokens, training batches and a held-out part."""
import gzip
import lzma
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|end|>"
BLOCK = 1 << 16  # characters; a longer file is cut, so that held-out text comes from all over it
HELD_OUT = 40  # one block in so many is never trained on
OPENERS = {".gz": gzip.open, ".dz": gzip.open, ".xz": lzma.open}
PLAIN = {".txt", ".text", ".md", ".rst", ".tex", ".dict", ""}


def files_of(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    """Each file named, and the text files below each folder, in the order of their names."""
    files: list[pathlib.Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.is_file()
                            and (file.with_suffix("") if file.suffix in OPENERS else file).suffix in PLAIN)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"--text: {path} does not exist")
    return files


def blocks_of(files: list[pathlib.Path]) -> Iterator[str]:
    for file in files:
        with OPENERS.get(file.suffix, open)(file, "rb") as opened:
            text = opened.read().decode("utf-8", "replace")
        yield from (text[at: at + BLOCK] for at in range(0, len(text), BLOCK))


def byte_characters() -> dict[str, int]:
    """The characters that stand for bytes in a byte-level BPE: the byte's own where it prints, others from 256 on."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(own))
    return {chr(byte): byte for byte in own} | {chr(256 + at): byte for at, byte in enumerate(others)}


def train_tokenizer(blocks: list[str], vocabulary: int) -> Tokenizer:
    """256 bytes, then `vocabulary` - 256 merged pairs, then END. Of bytes alone, a byte is its own token."""
    tokenizer = Tokenizer(models.BPE(vocab=byte_characters(), merges=[]) if vocabulary == 256 else models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if vocabulary > 256:
        tokenizer.train_from_iterator(blocks, trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_special_tokens([END])
    return tokenizer


def encode(tokenizer: Tokenizer, blocks: list[str]) -> np.ndarray:
    """The tokens of all blocks, END before each."""
    end = np.array([tokenizer.token_to_id(END)], np.int16)
    parts = []
    for at in range(0, len(blocks), 64):  # an encoding takes 100 bytes a token and more
        some = blocks[at: at + 64]
        encoded = ([np.frombuffer(block.encode(), np.uint8).astype(np.int16) for block in some] if end[0] == 256 else
                   [np.array(encoding.ids, np.int16) for encoding in tokenizer.encode_batch_fast(some)])
        for tokens in encoded:
            parts += [end, tokens]
    return np.concatenate(parts)


def prepare(paths: list[pathlib.Path], vocabulary: int, folder: pathlib.Path, keep: bool) -> None:
    """Writes tokenizer.json (`keep`: unless it is there), train.npy, held_out.npy and held_out_bytes into `folder`."""
    blocks = list(blocks_of(files_of(paths)))
    held_out = blocks[HELD_OUT // 2:: HELD_OUT]
    train = [block for at, block in enumerate(blocks) if at % HELD_OUT != HELD_OUT // 2]
    if not held_out:
        raise ValueError(f"--text: {sum(map(len, blocks))} characters in {len(blocks)} blocks, wanted more than "
                         f"{HELD_OUT // 2} blocks (files, or parts of {BLOCK} characters)")
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file)) if keep and file.exists() else train_tokenizer(train, vocabulary)
    tokenizer.save(str(file))
    np.save(folder / "train.npy", encode(tokenizer, train))
    np.save(folder / "held_out.npy", encode(tokenizer, held_out))
    (folder / "held_out_bytes").write_text(str(sum(len(block.encode()) for block in held_out)))


def batch(tokens: torch.Tensor, rows: int, length: int, seed: int, rank: int = 0, ranks: int = 1) -> torch.Tensor:
    """Rows [rows / ranks, length + 1] from random places of tokens [T], int64: with one seed the same rows for any number
    of ranks, shared out."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(tokens) - length, (rows,), generator=generator)[rank::ranks]
    return tokens[(starts.unsqueeze(1) + torch.arange(length + 1)).to(tokens.device)].long()
