# SPDX-License-Identifier: MIT
"""trit::amp::GradScaler against torch.amp.GradScaler: the same scripts of finite and infinite gradients, value by value.

usage: grad_scaler_test.py PROGRAM    (the program built from grad_scaler_script.cpp)
"""

import json
import random
import subprocess
import sys

import torch


def text(values):
    return ["%.9g" % v for v in values.tolist()]


def python_run(config, steps):
    def new_scaler():
        return torch.amp.GradScaler(
            "cpu", init_scale=config[0], growth_factor=config[1], backoff_factor=config[2], growth_interval=config[3]
        )

    scaler = new_scaler()
    scaler.scale(torch.zeros(()))  # creates the scale, as the first loss does
    parameter = torch.zeros(2, requires_grad=True)
    other = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.125, momentum=0.5)
    second = torch.optim.SGD([other], lr=0.125)
    stepped = [False]
    plain_step = optimizer.step

    def step(*args, **kwargs):
        stepped[0] = True
        return plain_step(*args, **kwargs)

    optimizer.step = step
    lines = []
    for kind, first, last in steps:
        stepped[0] = False
        if kind == "set":
            scaler.update(float(torch.tensor(float(first))))
        else:
            optimizer.zero_grad()
            scaler.scale((parameter * torch.tensor([float(first), float(last)])).sum()).backward()
            if kind == "unscale":
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            if kind == "two":
                second.zero_grad()
                scaler.scale((other * 3.0).sum()).backward()
                scaler.step(second)
            scaler.update()
        if kind == "reload":
            state = scaler.state_dict()
            scaler = new_scaler()
            scaler.load_state_dict(state)
            scaler.scale(torch.zeros(()))
        gradient = parameter.grad if parameter.grad is not None else torch.zeros(2)
        lines.append(
            {
                "parameter": text(parameter.detach()),
                "other": text(other.detach()),
                "gradient": text(gradient),
                "stepped": stepped[0],
                "kind": kind,
                **{key: float(value) for key, value in scaler.state_dict().items()},
            }
        )
    return lines


def cpp_run(program, config, steps):
    script = " ".join(repr(value) for value in config) + "\n"
    script += "".join(" ".join(step) + "\n" for step in steps)
    done = subprocess.run([program], input=script, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def unsigned_nan(line):
    """The sign of a NaN is not part of the comparison."""
    return {k: [v.lstrip("-") if "nan" in v else v for v in vs] if isinstance(vs, list) else vs for k, vs in line.items()}


def main():
    seed = 2024
    generator = random.Random(seed)
    compared = 0
    for config in [(65536.0, 2.0, 0.5, 2000), (4.0, 2.0, 0.5, 3), (3.0, 1.7, 0.3, 2), (2.0**126, 2.0, 0.5, 1), (1e-30, 8.0, 0.1, 1)]:
        steps = []
        for _ in range(60):
            kind = generator.choice(["plain"] * 4 + ["unscale", "unscale", "two", "set", "reload"])
            values = [generator.choice(["inf", "-inf", "nan"]) if generator.random() < 0.12 else repr(generator.uniform(-4, 4)) for _ in range(2)]
            if kind == "set":
                values = [repr(generator.choice([1.0, 7.5, 1024.0])), "0"]
            steps.append((kind, *values))
        want = python_run(config, steps)
        got = cpp_run(sys.argv[1], config, steps)
        if len(got) != len(want):
            sys.exit(f"{len(got)} steps printed, wanted {len(want)}")
        for index, (a, b) in enumerate(zip(got, want)):
            if unsigned_nan(a) != unsigned_nan(b):
                sys.exit(f"seed {seed}, config {config}, step {index} {steps[index]}:\n  trit   {a}\n  torch  {b}")
            compared += 1
    print(f"{compared} steps agree value by value (seed {seed})")


if __name__ == "__main__":
    main()
