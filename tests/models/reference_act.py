"""An ACT step and its loss in float64, written out plainly; shares no code with the package.

Shapes: B batch, T tokens, P prefix positions, S = P + T, D hidden size, N heads, V vocabulary.
"""

import math

import torch
from torch import Tensor

IGNORED = -100


def norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-5)


def rotate(x: Tensor) -> Tensor:
    """Rotary positions one pair of coordinates (i, i + d/2) at a time; x: B S N d."""
    _, S, _, d = x.shape
    half = d // 2
    out = [None] * d
    position = torch.arange(S, dtype=torch.float64).view(1, S, 1)
    for i in range(half):
        angle = position / 10000 ** (2 * i / d)
        a, b = x[..., i], x[..., i + half]
        out[i] = a * torch.cos(angle) - b * torch.sin(angle)
        out[i + half] = b * torch.cos(angle) + a * torch.sin(angle)
    return torch.stack(out, dim=-1)


class Reference:
    """Holds float64 leaves `p` under the state-dict names without the `model.inner.` prefix."""

    def __init__(self, arch: dict, loss: dict, state: dict[str, Tensor]):
        self.arch = {
            "backprop": "one_step",
            "q_continue": True,
            "qk_norm": False,
            "attention_bias": "none",
            "puzzle_emb_mode": "prefix",
        } | arch
        self.loss_config = {
            "lm_loss_weight": 1.0,
            "q_halt_weight": 0.5,
            "q_continue_weight": 0.5,
            "q_continue_loss": "bce",
        } | loss
        self.p = {
            name.removeprefix("model.inner."): t.double().clone().requires_grad_()
            for name, t in state.items()
        }
        self.prefix = 0
        if self.arch["puzzle_emb_mode"] == "prefix":
            self.prefix = math.ceil(self.arch["puzzle_emb_ndim"] / self.arch["hidden_size"])

    # -- the inner model -------------------------------------------------------------------------

    def attention(self, x: Tensor, name: str) -> Tensor:
        B, S, D = x.shape
        N = self.arch["num_heads"]
        d = D // N
        weight = self.p[f"{name}.qkv_proj.weight"]
        q, k, v = ((x @ weight[i * D : (i + 1) * D].T).view(B, S, N, d) for i in range(3))
        scale = 1 / math.sqrt(d)
        if self.arch["qk_norm"]:
            q, k, scale = norm(q), norm(k), 4 / math.sqrt(d)
        if self.arch["pos_encodings"] == "rope":
            q, k = rotate(q), rotate(k)
        scores = torch.einsum("bsnd,btnd->bnst", q, k) * scale
        if self.arch["attention_bias"] == "grid":
            scores = scores + 4 * math.sqrt(d) * self.relation_bias(name, S)
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        weights = weights / weights.sum(-1, keepdim=True)
        y = torch.einsum("bnst,btnd->bsnd", weights, v).reshape(B, S, D)
        return y @ self.p[f"{name}.o_proj.weight"].T

    def relation_bias(self, name: str, S: int) -> Tensor:
        """[N, S, S]: one learned number per head for each set of units that two cells share.

        Without boxes, being next to each other takes the place of sharing a box.
        """
        (_, columns), box = self.arch["grid_shape"], self.arch["box_shape"]
        table = self.p[f"{name}.bias.weight"]

        def relation(i: int, j: int) -> int:
            (a, b), (c, d) = divmod(i - self.prefix, columns), divmod(j - self.prefix, columns)
            if box is None:
                third = abs(a - c) + abs(b - d) == 1
            else:
                third = (a // box[0], b // box[1]) == (c // box[0], d // box[1])
            return (a == c) + 2 * (b == d) + 4 * third

        rows = []
        for i in range(S):
            for j in range(S):
                rows.append(table[:, relation(i, j) if min(i, j) >= self.prefix else 0])
        return torch.stack(rows, dim=-1).view(-1, S, S)

    def mlp(self, x: Tensor, name: str) -> Tensor:
        both = x @ self.p[f"{name}.gate_up_proj.weight"].T
        width = both.shape[-1] // 2
        gate, up = both[..., :width], both[..., width:]
        return (gate / (1 + torch.exp(-gate)) * up) @ self.p[f"{name}.down_proj.weight"].T

    def module(self, level: str, h: Tensor, injection: Tensor) -> Tensor:
        h = h + injection
        for i in range(self.arch[f"{level}_layers"]):
            name = f"{level}_level.layers.{i}"
            h = norm(h + self.attention(h, f"{name}.self_attn"))
            h = norm(h + self.mlp(h, f"{name}.mlp"))
        return h

    def puzzle_rows(self, identifiers: Tensor) -> Tensor:
        table = self.p["puzzle_emb.weights"]
        zero = torch.zeros(table.shape[1], dtype=torch.float64)
        return torch.stack([zero if i < 0 else table[i] for i in identifiers.tolist()])

    def embed(self, inputs: Tensor, identifiers: Tensor) -> Tensor:
        D, ndim = self.arch["hidden_size"], self.arch["puzzle_emb_ndim"]
        e = self.p["embed_tokens.embedding_weight"][inputs.long()]
        B, T, _ = e.shape
        if ndim:
            rows = self.puzzle_rows(identifiers)
            if self.arch["puzzle_emb_mode"] == "add":
                e = e.clone()
                e[:, :, :ndim] += rows[:, None, :]
            else:
                filled = torch.zeros(B, self.prefix * D, dtype=torch.float64)
                filled[:, :ndim] = rows
                e = torch.cat([filled.view(B, self.prefix, D), e], dim=1)
        if self.arch["pos_encodings"] == "learned":
            e = (e + self.p["embed_pos.embedding_weight"]) / math.sqrt(2)
        if self.arch["pos_encodings"] == "grid":
            (_, columns), box = self.arch["grid_shape"], self.arch["box_shape"]
            tables = []
            for t in range(T):
                r, c = divmod(t, columns)
                own = self.p["embed_pos.row.embedding_weight"][r]
                own = own + self.p["embed_pos.column.embedding_weight"][c]
                if box is not None:
                    b = (r // box[0]) * (columns // box[1]) + c // box[1]
                    own = own + self.p["embed_pos.box.embedding_weight"][b]
                tables.append(own)
            e = torch.cat([e[:, : self.prefix], e[:, self.prefix :] + torch.stack(tables)], dim=1)
        return math.sqrt(D) * e

    def inner(self, z_H: Tensor, z_L: Tensor, e: Tensor) -> tuple[Tensor, ...]:
        H, L = self.arch["H_cycles"], self.arch["L_cycles"]
        calls = [call for _ in range(H) for call in ["L"] * L + ["H"]]
        graded = L + 1 if self.arch["backprop"] == "last_cycle" else 2
        for number, level in enumerate(calls):
            if number == len(calls) - graded:  # everything before is a constant
                z_H, z_L = z_H.detach(), z_L.detach()
            if level == "L":
                z_L = self.module("L", z_L, z_H + e)
            else:
                z_H = self.module("H", z_H, z_L)
        return z_H, z_L, *self.read(z_H)

    def read(self, z_H: Tensor) -> tuple[Tensor, ...]:
        """Logits and halting values."""
        logits = (z_H @ self.p["lm_head.weight"].T)[:, self.prefix :]
        q = z_H[:, 0] @ self.p["q_head.weight"].T + self.p["q_head.bias"]
        return logits, q[:, 0], q[:, 1]

    # -- the ACT wrapper -------------------------------------------------------------------------

    def state_shape(self, T: int) -> tuple[int, ...]:
        return self.prefix + T, self.arch["hidden_size"]

    def initial_carry(self, batch: dict[str, Tensor]) -> dict:
        B, T = batch["inputs"].shape
        z = torch.zeros(B, *self.state_shape(T), dtype=torch.float64)
        data = {name: value.clone() for name, value in batch.items()}
        return {
            "z_H": z,
            "z_L": z,
            "steps": [0] * B,
            "halted": [True] * B,
            "data": data,
        }

    def step(self, carry: dict, batch: dict[str, Tensor], training: bool) -> tuple[dict, dict]:
        """One ACT step without exploration: the new carry, and outputs, loss and metrics."""
        z_H, z_L, steps = carry["z_H"].clone(), carry["z_L"].clone(), list(carry["steps"])
        data = {name: value.clone() for name, value in carry["data"].items()}
        for b, halted in enumerate(carry["halted"]):
            if halted:
                z_H[b], z_L[b], steps[b] = self.p["H_init"].detach(), self.p["L_init"].detach(), 0
                for name in data:
                    data[name][b] = batch[name][b]
        e = self.embed(data["inputs"], data["puzzle_identifiers"])
        z_H, z_L, logits, q_halt, q_continue = self.inner(z_H, z_L, e)

        maximum = self.arch["halt_max_steps"]
        steps = [s + 1 for s in steps]
        halted = [s >= maximum for s in steps]
        with_target = training and maximum > 1 and self.arch["q_continue"]
        if training and maximum > 1:
            for b in range(len(halted)):
                if self.arch["q_continue"]:
                    halted[b] = halted[b] or bool(q_halt[b] > q_continue[b])
                else:
                    halted[b] = halted[b] or bool(q_halt[b] > 0)
        result = {"logits": logits, "q_halt_logits": q_halt, "q_continue_logits": q_continue}
        if with_target:
            with torch.no_grad():
                _, _, _, next_halt, next_continue = self.inner(z_H, z_L, e)
            target = [
                next_halt[b] if steps[b] >= maximum else max(next_halt[b], next_continue[b])
                for b in range(len(steps))
            ]
            result["target_q_continue"] = 1 / (1 + torch.exp(-torch.stack(target)))
        result |= self.loss(result, data["labels"], steps, halted)
        new = {
            "z_H": z_H.detach(),
            "z_L": z_L.detach(),
            "steps": steps,
            "halted": halted,
            "data": data,
        }
        return new, result

    # -- the loss head ---------------------------------------------------------------------------

    def token_loss(self, logits: Tensor, label: int) -> Tensor:
        if self.loss_config["loss_type"] == "softmax_cross_entropy":
            return -logits[label] + torch.log(torch.exp(logits).sum())
        s = torch.stack([x + 1 if x >= 0 else 1 / (1 - x) for x in logits])
        return -torch.log(s[label] / s.sum())

    def loss(self, outputs: dict, labels: Tensor, steps: list[int], halted: list[bool]) -> dict:
        def bce(logit: Tensor, target: Tensor | float) -> Tensor:
            p = 1 / (1 + torch.exp(-logit))
            return -(target * torch.log(p) + (1 - target) * torch.log(1 - p))

        zero = torch.zeros((), dtype=torch.float64)
        lm, halt, go_on = zero, zero, zero
        sums = dict.fromkeys(
            (
                "count",
                "accuracy",
                "exact_accuracy",
                "q_halt_accuracy",
                "steps",
                "q_halt",
                "q_continue",
            ),
            0.0,
        )
        for b, row in enumerate(labels.tolist()):
            logits = outputs["logits"][b]
            positions = [t for t, label in enumerate(row) if label != IGNORED]
            losses = [self.token_loss(logits[t], row[t]) for t in positions]
            right = [int(logits[t].argmax()) == row[t] for t in positions]
            exact = all(right)
            q_halt, q_continue = outputs["q_halt_logits"][b], outputs["q_continue_logits"][b]
            if positions:
                lm = lm + sum(losses) / len(losses)
            halt = halt + bce(q_halt, float(exact))
            if "target_q_continue" in outputs:
                target = outputs["target_q_continue"][b]
                if self.loss_config["q_continue_loss"] == "bce":
                    go_on = go_on + bce(q_continue, target)
                else:
                    go_on = go_on + (1 / (1 + torch.exp(-q_continue)) - target) ** 2
            if halted[b] and positions:
                sums["count"] += 1
                sums["accuracy"] += sum(right) / len(right)
                sums["exact_accuracy"] += exact
                sums["q_halt_accuracy"] += (q_halt.item() >= 0) == exact
                sums["steps"] += steps[b]
                sums["q_halt"] += q_halt.item()
                sums["q_continue"] += q_continue.item()
        c = self.loss_config
        total = c["lm_loss_weight"] * lm + c["q_halt_weight"] * halt
        metrics = sums | {"lm_loss": lm.item(), "q_halt_loss": halt.item()}
        if "target_q_continue" in outputs:
            total = total + c["q_continue_weight"] * go_on
            metrics["q_continue_loss"] = go_on.item()
        return {"loss": total, "metrics": metrics}
