# SPDX-License-Identifier: MIT
"""What train_lm.py writes at its end: the packed model of a Hugging Face folder, loaded, and text from it."""
import pathlib

import torch
import transformers
import trit


def generate(folder: pathlib.Path, prompt: str, device: torch.device, model: torch.nn.Module | None = None) -> str:
    """The prompt and 200 more tokens, from the packed model in `folder` or the one loaded already."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False).to(device)
    torch.manual_seed(0)
    written = (model or load(folder, device)).generate(**inputs, max_new_tokens=200, do_sample=True, temperature=0.7, top_k=50,
                                                       use_cache=True, pad_token_id=tokenizer.eos_token_id)
    return tokenizer.decode(written[0], skip_special_tokens=True)


def load(folder: pathlib.Path, device: torch.device) -> torch.nn.Module:
    """The packed model: transformers loads it, trit's kernels run it."""
    with torch.compiler.set_stance("force_eager"):  # it would compile the unpacking of the weights
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    if getattr(model.config, "quantization_config", None) is not None:
        trit.hf.swap_(model)
    return model
