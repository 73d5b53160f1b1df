# SPDX-License-Identifier: MIT
"""Trains a small ternary language model on your text, packs it and lets it write; and its float twin to compare with.

    apt-get download dict-gcide && dpkg -x dict-gcide_*.deb text            # 40 MB of English (doc-rfc-std in non-free)
    python train_lm.py --text text/usr/share/dictd --out runs/lm
    python train_lm.py --text text/usr/share/dictd --out runs/lm-float --float
    torchrun --nproc-per-node 4 train_lm.py --text ... --parallel fsdp     # or ddp, on GPUs or CPUs
    python train_lm.py --out runs/lm --generate "Language \\\\"

The model is transformers' BitNet architecture: 20 million parameters unless options say otherwise, its linear layers
trit.nn.BitLinear (torch.nn.Linear with --float). --text takes files and folders: plain text, also .gz, .dz and .xz; one
block of 64 KiB in 40 is held out. OUT gets checkpoints, TensorBoard's files, results.json, and at the end the packed model as a
Hugging Face folder and as GGUF. Ctrl-C writes a checkpoint and ends; --resume goes on, with any number of processes.
"""
import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import warnings

import lm_generate
import lm_text
import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import tqdm
import transformers
import trit
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict
from torch.nn.functional import cross_entropy


def count(text: str) -> int:
    """A whole number from 1 on, also as 1e8."""
    number = float(text)
    if not 1 <= number < 2**63 or number != int(number):
        raise argparse.ArgumentTypeError(f"{text}: wanted a whole number from 1 on")
    return int(number)


def rate(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: wanted a number above 0")
    return number


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", type=pathlib.Path, nargs="+", help="files and folders to train on")
    add("--out", type=pathlib.Path, default=pathlib.Path("runs/lm"), help="folder for everything written (%(default)s)")
    add("--float", action="store_true", help="train the float twin")
    add("--compare", type=pathlib.Path, help="OUT of the other twin, for the ratio of the perplexities")
    add("--resume", action="store_true", help="go on from the last checkpoint in OUT")
    add("--generate", metavar="PROMPT", help="train nothing: write on from PROMPT with OUT's packed model")
    add("--tokens", type=count, help="to train on, repeats counted (1e8 on a GPU, 1e6 on a CPU)")
    add("--batch", type=count, default=128, help="sequences a step, over all processes (%(default)s)")
    add("--sequence", type=count, default=512, help="tokens a sequence (%(default)s)")
    add("--vocab", type=int, default=256, help="256 is bytes, more is a BPE trained on the text (%(default)s)")
    add("--hidden", type=count, default=512, help="width, a multiple of 64 (%(default)s)")
    add("--layers", type=count, default=6, help="decoder layers (%(default)s)")
    add("--lr", type=rate, default=2e-3, help="AdamW's peak, after a warm-up of 5 %% and down a cosine to 5 %% (%(default)s)")
    add("--seed", type=int, default=0)
    add("--every", type=count, default=500, help="steps between checkpoints and held-out perplexities (%(default)s)")
    add("--parallel", choices=["ddp", "fsdp"], default="ddp", help="with torchrun; fsdp gathers weights in 2 bits (%(default)s)")
    add("--no-compile", action="store_true", help="do not use torch.compile (a CPU never does)")
    args = parser.parse_args()
    if args.text is None and args.generate is None:
        parser.error("--text: wanted files or folders to train on (or --generate PROMPT)")
    if not 256 <= args.vocab < 32768:
        parser.error(f"--vocab {args.vocab}: wanted 256 to 32767")
    if args.hidden % 64:
        parser.error(f"--hidden {args.hidden}: wanted a multiple of 64, the width of a head")
    return args


def build(args: argparse.Namespace, vocabulary: int) -> torch.nn.Module:
    """transformers' BitNet: RMSNorm, rotary attention, gated SiLU, and a norm before each output layer."""
    config = transformers.BitNetConfig(
        vocab_size=(vocabulary + 63) // 64 * 64, hidden_size=args.hidden, intermediate_size=-(-8 * args.hidden // 768) * 256,
        num_hidden_layers=args.layers, num_attention_heads=args.hidden // 64, num_key_value_heads=args.hidden // 64, use_cache=False,
        max_position_embeddings=max(args.sequence, 1024), tie_word_embeddings=True, rope_theta=1e4, hidden_act="silu",
        bos_token_id=vocabulary - 1, eos_token_id=vocabulary - 1)
    torch.manual_seed(args.seed)
    model = transformers.BitNetForCausalLM(config)
    if not args.float:
        # The architecture has a norm before every linear layer, so the layers bring none of their own.
        trit.convert(model, lambda name, linear: name != "lm_head", norm="none")
    return model


class Run:
    """One process of a run: device, model, optimizer, text."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.rank, self.ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        gpu = "cuda" in trit.backends()
        self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
        if gpu:
            torch.cuda.set_device(self.device)
        if "RANK" in os.environ:  # torchrun
            dist.init_process_group("nccl" if gpu else "gloo")
        if args.batch % self.ranks:
            sys.exit(f"--batch {args.batch}: wanted a multiple of {self.ranks}, the number of processes")
        if not args.resume and any((args.out / "checkpoints").glob("*")):
            sys.exit(f"{args.out} has checkpoints: --resume goes on from them, another --out starts anew")
        args.out.mkdir(parents=True, exist_ok=True)
        self.barrier()
        if self.rank == 0:
            lm_text.prepare(args.text, args.vocab, args.out, args.resume)
        self.barrier()
        self.train_tokens, self.held_out = (torch.from_numpy(np.load(args.out / name)).to(self.device)
                                            for name in ("train.npy", "held_out.npy"))
        if min(len(self.train_tokens), len(self.held_out)) <= args.sequence:
            sys.exit(f"--text: {len(self.held_out)} tokens are held out, wanted more than --sequence {args.sequence}")
        self.tokenizer = lm_text.Tokenizer.from_file(str(args.out / "tokenizer.json"))
        self.steps = math.ceil((args.tokens or (1e8 if gpu else 1e6)) / (args.batch * args.sequence))
        self.model = self.raw = build(args, self.tokenizer.get_vocab_size()).to(self.device)
        if gpu and not args.no_compile:
            for layer in self.raw.model.layers:  # one compilation serves all; FSDP's hooks stay outside
                layer.forward = torch.compile(layer.forward)
        if self.ranks > 1 and args.parallel == "fsdp":
            if not args.float:
                trit.fsdp.gather_codes_(self.raw)
            for layer in self.raw.model.layers:
                torch.distributed.fsdp.fully_shard(layer)
            torch.distributed.fsdp.fully_shard(self.raw)
        elif self.ranks > 1:
            self.model = torch.nn.parallel.DistributedDataParallel(self.raw, broadcast_buffers=False)
        decayed = [p for p in self.raw.parameters() if p.dim() > 1]
        others = [p for p in self.raw.parameters() if p.dim() <= 1]
        self.optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                           args.lr, betas=(0.9, 0.95), fused=gpu)
        self.stop = False
        self.parameters = sum(p.numel() for p in self.raw.parameters())
        if self.rank == 0:
            print(f"{'float' if args.float else 'ternary'}, {self.parameters / 1e6:.1f} M parameters: {self.steps} steps of "
                  f"{args.batch} x {args.sequence} tokens from {len(self.train_tokens) / 1e6:.1f} M, on {self.device.type} in "
                  f"{self.ranks} process{'es' * (self.ranks > 1)}", flush=True)

    def barrier(self) -> None:
        if dist.is_initialized():
            dist.barrier()

    def mean(self, value: torch.Tensor) -> float:
        """Over the processes, which all call it."""
        if dist.is_initialized():
            dist.all_reduce(value := value.clone())
        return float(value) / self.ranks

    def losses(self, model: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of rows [batch, sequence + 1], in nats a token."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        return cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())

    @torch.no_grad()
    def perplexity(self, model: torch.nn.Module, limit: int = 1 << 20) -> float:
        """Of the first `limit` held-out tokens, each process its share. Every batch has the shape of training."""
        length, batch = self.args.sequence, self.args.batch
        windows = self.held_out[: limit + 1].unfold(0, length + 1, length)
        whole = max(1, len(windows) // batch) * batch  # of a text too small for one batch, some twice
        batches = windows[torch.arange(whole, device=self.device) % len(windows)].long().split(batch // self.ranks)
        total = torch.zeros((), device=self.device)
        with torch.compiler.set_stance("force_eager"):  # without gradients it would all be compiled again
            for at in range(self.rank, len(batches), self.ranks):
                total += self.losses(model, batches[at]) * (self.ranks / len(batches))
        return math.exp(self.mean(total))

    def rate(self, step: int) -> float:
        warm_up = max(1, self.steps // 20)
        if step < warm_up:
            return self.args.lr * (step + 1) / warm_up
        return self.args.lr * (0.05 + 0.475 * (1 + math.cos(math.pi * (step - warm_up) / max(1, self.steps - warm_up))))

    def save(self, step: int) -> None:
        """A checkpoint of all processes: whole or not there. Only the last one is kept."""
        folder = self.args.out / "checkpoints"
        partial, final = folder / "partial", folder / f"{step:08d}"
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.save({"model": model, "optimizer": optimizer}, checkpoint_id=partial)
        if self.rank == 0 and not final.exists():
            os.replace(partial, final)
            for old in folder.iterdir():
                if old != final:
                    shutil.rmtree(old)
        self.barrier()

    def resume(self) -> int:
        """The step to go on from."""
        saved = sorted(path for path in (self.args.out / "checkpoints").glob("*") if path.name.isdigit())
        if not saved:
            sys.exit(f"--resume: {self.args.out} has no checkpoint")
        model, optimizer = get_state_dict(self.model, self.optimizer)
        dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=saved[-1])
        set_state_dict(self.model, self.optimizer, model_state_dict=model, optim_state_dict=optimizer)
        return int(saved[-1].name)

    def interrupt(self, number: int, frame: object) -> None:
        self.stop = True
        if self.ranks == 1:
            signal.signal(number, signal.SIG_DFL)  # a second one ends it at once; torchrun sends several

    def should_stop(self) -> bool:
        return self.mean(torch.tensor(float(self.stop), device=self.device)) > 0

    def train(self) -> bool:
        """False after an interrupt."""
        args, per_step = self.args, self.args.batch * self.args.sequence
        first = self.resume() if args.resume else 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.interrupt)
        log = None
        if self.rank == 0:
            with contextlib.suppress(ImportError):  # without the package tensorboard, no curves
                from torch.utils.tensorboard import SummaryWriter
                log = SummaryWriter(args.out / "tensorboard", purge_step=first)
        bar = tqdm.tqdm(total=self.steps * per_step, initial=first * per_step, unit="token", unit_scale=True,
                        disable=True if self.rank else None)  # None: no bar where there is no terminal
        self.model.train()
        self.seconds, self.trained, last, last_step = 0.0, 0, time.perf_counter(), first
        for step in range(first, self.steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(step)
            rows = lm_text.batch(self.train_tokens, args.batch, args.sequence, args.seed + step, self.rank, self.ranks)
            loss = self.losses(self.model, rows)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.raw.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            bar.update(per_step)
            done = step + 1
            if done % (10 if self.device.type == "cuda" else 1) and done != self.steps:
                continue  # the lines below wait for the GPU
            value, stopped = self.mean(loss.detach()), self.should_stop()
            if not math.isfinite(value):
                sys.exit(f"step {step}: the loss is {value}; a smaller --lr may help (now {args.lr})")
            now = time.perf_counter()
            speed = (done - last_step) * per_step / (now - last)
            if last_step > first:  # not the first ten: they compile
                self.seconds, self.trained = self.seconds + now - last, self.trained + (done - last_step) * per_step
            bar.set_postfix(loss=f"{value:.3f}")
            if log:
                for name, point in (("loss", value), ("learning rate", self.rate(step)), ("tokens per second", speed)):
                    log.add_scalar(name, point, done)
            if stopped or done % args.every == 0 or done == self.steps:
                self.save(done)
                if stopped:
                    bar.close()
                    if log:
                        log.close()
                    if self.rank == 0:
                        print(f"interrupted at step {done} of {self.steps}: --resume goes on from here", flush=True)
                    return False
                found = self.perplexity(self.model)
                if log:
                    log.add_scalar("held-out perplexity", found, done)
                if self.rank == 0:
                    bar.write(f"step {done} of {self.steps}: loss {value:.3f}, held-out perplexity {found:.4f}, "
                              f"{speed / 1e3:,.0f}k tokens/s")
                    sys.stdout.flush()
            last, last_step = time.perf_counter(), done
        bar.close()
        if log:
            log.close()
        return True


def export(run: Run, weights: dict[str, torch.Tensor]) -> pathlib.Path:
    """OUT/huggingface with model and tokenizer, and OUT/model.gguf where there is the command `trit`."""
    folder = run.args.out / "huggingface"
    model = build(run.args, run.tokenizer.get_vocab_size())
    model.load_state_dict(weights)
    if run.args.float:
        model.save_pretrained(folder)
    else:
        trit.hf.save_pretrained(model, folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=run.tokenizer, eos_token=lm_text.END).save_pretrained(folder)
    command = os.environ.get("TRIT_COMMAND") or shutil.which("trit")
    if command and not run.args.float:
        kind = "tq2_0" if run.args.hidden % 256 == 0 else "q2_0"  # inputs in blocks of 256 or 64
        subprocess.run([command, "convert", folder, run.args.out / "model.gguf", "--to", "gguf", "--type", kind], check=True)
    return folder


def main() -> None:
    args = options()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process is no mistake
    if args.generate is not None:
        print(lm_generate.generate(args.out / "huggingface", args.generate, torch.device("cuda" if "cuda" in trit.backends() else "cpu")))
        return
    run = Run(args)
    finished = run.train()
    results: dict[str, object] = {}
    if finished:
        run.model.eval()
        found = run.perplexity(run.model)
        weights = get_model_state_dict(run.model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        results = {"kind": "float" if args.float else "ternary", "parameters": run.parameters,
                   "tokens": run.steps * args.batch * args.sequence, "processes": run.ranks, "held_out_perplexity": found,
                   "tokens_per_second": run.trained / run.seconds if run.seconds else None}
    if dist.is_initialized():
        dist.destroy_process_group()
        if not finished or run.rank:
            # Gloo's threads outlive the group, and one that drops its last tensor while Python finalizes aborts the process.
            sys.stdout.flush()
            os._exit(0)
    if not finished:
        return
    run.ranks = 1  # from here this process alone
    folder = export(run, weights)
    packed = lm_generate.load(folder, run.device)
    if not args.float:
        results["packed_perplexity"] = run.perplexity(packed)
        results["packed_bytes"] = (folder / "model.safetensors").stat().st_size
    size = int((args.out / "held_out_bytes").read_text())
    results["bits_per_byte"] = math.log2(found) * len(run.held_out) / size
    if args.compare:
        other = json.loads((args.compare / "results.json").read_text())
        ratio = found / other["held_out_perplexity"]
        results["ternary_over_float"] = 1 / ratio if args.float else ratio
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    print(lm_generate.generate(folder, "The ", run.device, packed))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
